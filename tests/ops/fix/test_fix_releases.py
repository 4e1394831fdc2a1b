"""Files of a decoded release of whole files come back byte for byte, torch files too."""

import random
from pathlib import Path

import pytest

from tests.support.damage import HARMS
from tests.support.file_releases import write_encrypted
from tests.support.folders import contents, copied, state
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.fix.fix import fix_files

SHARD = "pytorch_model-00001-of-00002.bin"


@pytest.fixture(scope="module")
def sound(vectors: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an XOR release decodes to."""
    release = vectors / "oasst_xor"
    target = tmp_path_factory.mktemp("sound") / "out"
    return apply_delta(release / "base", release / "delta", target=target).target


@pytest.fixture
def out(sound: Path, tmp_path: Path) -> Path:
    return copied(sound, tmp_path / "out")


def chain(vectors: Path) -> str:
    release = vectors / "oasst_xor"
    return f"{release / 'base'}+{release / 'delta'}"


def damage(path: Path, how: str) -> None:
    if how == "gone":
        path.unlink()
    elif how == "padding":
        content = bytearray(path.read_bytes())
        content[100] ^= 1  # between the first member's name and its aligned bytes
        path.write_bytes(content)
    else:
        path.write_bytes(HARMS[how](bytearray(path.read_bytes()), random.Random(1)))


@pytest.mark.parametrize("from_copy", [True, False])
@pytest.mark.parametrize("how", ["gone", "padding", *HARMS])
@pytest.mark.sampled(5)
def test_a_torch_file_is_decoded_again_or_copied(
    sound: Path, out: Path, vectors: Path, how: str, from_copy: bool
) -> None:
    damage(out / SHARD, how)
    before = [each for each in state(out)[1:] if not each[0].endswith(SHARD)]
    source = sound if from_copy else chain(vectors)
    (told,) = fix_files(out, source=source, dry_run=True).files
    assert told.outcome == "can be fixed"
    (fix,) = fix_files(out, source=source).files
    assert (fix.file, fix.outcome) == (SHARD, "fixed")
    assert contents(out) == contents(sound)
    assert [each for each in state(out)[1:] if not each[0].endswith(SHARD)] == before


def test_all_files_of_a_release_come_back_at_once(sound: Path, out: Path, vectors: Path) -> None:
    for path in sorted(out.iterdir()):
        if path.name != "weightsmith.json":
            damage(path, "cut")
    assert fix_files(out, source=chain(vectors)).complete
    assert contents(out) == contents(sound)


def test_what_another_base_decodes_to_replaces_no_torch_file(
    out: Path, vectors: Path, tmp_path: Path
) -> None:
    base = copied(vectors / "oasst_xor" / "base", tmp_path / "base")
    content = bytearray((base / SHARD).read_bytes())
    content[len(content) // 2] ^= 1  # in a tensor
    (base / SHARD).write_bytes(content)
    damage(out / SHARD, "cut")
    before = state(out)[1:]
    (fix,) = fix_files(out, source=f"{base}+{vectors / 'oasst_xor' / 'delta'}").files
    assert fix.outcome == "left"
    assert fix.how.endswith("comes out otherwise: 1 of 16 tensors differs")
    assert fix.hint == "weightsmith apply-delta --base BASE --delta DELTA -o NEW"
    assert state(out)[1:] == before


def test_what_needs_a_key_is_left_with_the_command_that_decodes_it(tmp_path: Path) -> None:
    delta = write_encrypted(tmp_path / "delta", {"big.dat": bytes(999), "a.json": b"{}"}, b"key")
    (tmp_path / "key").write_bytes(b"key")
    out = apply_delta(None, delta, key=tmp_path / "key", target=tmp_path / "out").target
    whole = contents(out)
    damage(out / "big.dat", "cut")
    (fix,) = fix_files(out).files
    assert (fix.outcome, fix.how.partition(": ")[2]) == ("left", "name a copy")
    assert fix.hint == "weightsmith apply-delta --key FILE --delta DELTA -o NEW"
    copy = apply_delta(None, delta, key=tmp_path / "key", target=tmp_path / "copy").target
    assert fix_files(out, source=copy).complete
    assert contents(out) == whole

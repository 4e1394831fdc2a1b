"""A manifest that is damaged or gone comes back where a source proves what it was."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch

from tests.support.delta_models import trained, write_pair
from tests.support.folders import contents, copied, hidden, load, state, write_model
from tests.support.world import killed_at_each_step
from weightsmith.engine.manifest import read_manifest
from weightsmith.errors import FixSourceMissing, FixUnproved, JsonInvalid
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.convert import convert
from weightsmith.ops.fix.fix import fix_files
from weightsmith.ops.make_delta import make_delta
from weightsmith.ops.verify.verify import verify

MANIFEST = "weightsmith.json"
FIRST, SECOND = (f"model-{number:05d}-of-00002.safetensors" for number in (1, 2))


@pytest.fixture(scope="module")
def world(vectors: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs of every command whose manifest follows from what they are made from, and copies."""
    folder = tmp_path_factory.mktemp("world")
    base, target = write_pair(folder)
    make_delta(base, target, folder / "delta")
    apply_delta(base, folder / "delta", target=folder / "applied")
    vicuna = vectors / "vicuna_v1_1"
    apply_delta(vicuna / "base", vicuna / "delta", target=folder / "added", max_shard_nbytes=60_000)
    apply_delta(vicuna / "base", vicuna / "delta", target=folder / "whole")
    release = vectors / "oasst_xor"
    apply_delta(release / "base", release / "delta", target=folder / "decoded")
    convert(target, folder / "converted")
    convert(target, folder / "half", dtype="float16")
    for name in ("applied", "added", "whole", "converted", "half", "decoded", "delta"):
        copied(folder / name, folder / f"{name}-copy")
    return folder


def source_of(world: Path, vectors: Path, name: str) -> str | Path:
    vicuna, release = vectors / "vicuna_v1_1", vectors / "oasst_xor"
    sources: dict[str, str | Path] = {
        "applied": f"{world / 'base'}+{world / 'delta'}",
        "whole": f"{vicuna / 'base'}+{vicuna / 'delta'}",
        "converted": world / "target",
        "half": world / "target",
        "decoded": f"{release / 'base'}+{release / 'delta'}",
    }
    return sources[name]


def flip_a_digest(raw: bytes) -> bytes:
    """Still JSON, and of a manifest's form."""
    at = raw.index(b'"fingerprint": "') + 20
    return raw[:at] + (b"0" if raw[at : at + 1] != b"0" else b"1") + raw[at + 1 :]


HARMS: dict[str, Callable[[bytes], bytes | None]] = {
    "gone": lambda _: None,
    "cut": lambda raw: raw[: len(raw) // 2],
    "flip": flip_a_digest,
    "own digest": lambda raw: raw.replace(b'"own_digest": "', b'"own_digest": "0')[:-1],
    "zero": lambda raw: bytes(len(raw)),
}


def harm(folder: Path, how: str) -> None:
    path = folder / MANIFEST
    harmed = HARMS[how](path.read_bytes())
    if harmed is None:
        path.unlink()
    else:
        path.write_bytes(harmed)


@pytest.mark.parametrize("how", [*HARMS])
@pytest.mark.parametrize(
    "name, from_copy",
    [
        ("applied", False),
        ("whole", False),
        ("converted", False),
        ("half", False),
        ("decoded", False),
        ("applied", True),
        ("added", True),
        ("half", True),
        ("decoded", True),
        ("delta", True),
    ],
)
@pytest.mark.sampled(12)
def test_a_manifest_comes_back_from_a_copy_or_what_the_folder_was_made_from(
    world: Path, vectors: Path, tmp_path: Path, name: str, how: str, *, from_copy: bool
) -> None:
    out = copied(world / name, tmp_path / "out")
    source = world / f"{name}-copy" if from_copy else source_of(world, vectors, name)
    harm(out, how)
    before = state(out)[1:]
    (told,) = fix_files(out, source=source, dry_run=True).files
    assert (told.file, told.outcome) == (MANIFEST, "can be fixed")
    assert state(out)[1:] == before
    (fix,) = fix_files(out, source=source).files
    assert (fix.file, fix.outcome) == (MANIFEST, "fixed")
    assert contents(out) == contents(world / name)
    assert not hidden(out)


@pytest.mark.parametrize("from_copy", [True, False])
def test_a_manifest_and_other_files_come_back_at_once(
    world: Path, vectors: Path, tmp_path: Path, *, from_copy: bool
) -> None:
    """Its own digest, which is legible, proves it: no weight file need be right."""
    out = copied(world / "applied", tmp_path / "out")
    source = world / "applied-copy" if from_copy else source_of(world, vectors, "applied")
    harm(out, "flip")
    for name in (SECOND, "config.json", "model.safetensors.index.json"):
        path = out / name
        path.write_bytes(path.read_bytes()[:-7] + b"changed")
    assert fix_files(out, source=source).complete
    assert contents(out) == contents(world / "applied")


def test_a_weight_file_that_cannot_be_read_speaks_against_nothing(
    world: Path, vectors: Path, tmp_path: Path
) -> None:
    out = copied(world / "applied", tmp_path / "out")
    harm(out, "gone")
    (out / FIRST).write_bytes((out / FIRST).read_bytes()[:-1])
    assert fix_files(out, source=source_of(world, vectors, "applied")).complete
    assert contents(out) == contents(world / "applied")


def test_a_small_file_that_differs_speaks_against_a_source(
    world: Path, vectors: Path, tmp_path: Path
) -> None:
    """It may be damaged, or changed on purpose; one that is gone comes back."""
    out = copied(world / "applied", tmp_path / "out")
    harm(out, "gone")
    (out / "config.json").write_bytes(b'{"changed": "on purpose"}')
    before = state(out)[1:]
    for source in (world / "applied-copy", source_of(world, vectors, "applied")):
        with pytest.raises(FixUnproved) as caught:
            fix_files(out, source=source)
        assert caught.value.context == ("config.json can be read, and differs",)
        assert state(out)[1:] == before
    (out / "config.json").unlink()
    assert fix_files(out, source=world / "applied-copy").complete
    assert contents(out) == contents(world / "applied")


def test_of_two_commands_that_make_the_same_files_the_right_one_is_told(
    world: Path, vectors: Path, tmp_path: Path
) -> None:
    source = source_of(world, vectors, "whole")
    out = convert(source, tmp_path / "out").target
    whole = contents(out)
    harm(out, "flip")
    assert fix_files(out, source=source).complete
    assert contents(out) == whole


@pytest.mark.parametrize("how", ["gone", "zero"])
def test_a_fine_tune_without_a_manifest_is_no_damaged_copy(
    world: Path, vectors: Path, tmp_path: Path, how: str
) -> None:
    """One of its files is the same, and so are all headers."""
    out = copied(world / "applied", tmp_path / "out")
    tensors = load(out)
    tuned = {
        name: trained(each, seed=5) if each.dtype == torch.bfloat16 and "up" in name else each
        for name, each in tensors.items()
    }
    for path in out.glob("*.safetensors"):
        path.unlink()
    write_model(out, tuned, shards=2)
    harm(out, how)
    before = state(out)[1:]
    for source in (world / "applied-copy", source_of(world, vectors, "applied")):
        with pytest.raises(FixUnproved):
            fix_files(out, source=source)
        assert state(out)[1:] == before
    assert not hidden(out)


def test_what_says_nothing_of_a_lost_manifest_is_refused_with_a_command(
    world: Path, tmp_path: Path
) -> None:
    out = copied(world / "added", tmp_path / "out")
    harm(out, "gone")
    with pytest.raises(FixUnproved) as caught:
        fix_files(out, source=world / "base")
    assert caught.value.hint_text.endswith(f"weightsmith diff {out} {world / 'base'}")
    with pytest.raises(FixUnproved) as caught:
        fix_files(out, source=f"{world / 'base'}+{world / 'delta'}")
    assert "weightsmith apply-delta --base" in caught.value.hint_text
    with pytest.raises(FixSourceMissing) as missing:
        fix_files(out)
    assert missing.value.hint_text.endswith(f"weightsmith verify {out} --fix --from COPY")
    (out / MANIFEST).write_bytes(b"{")
    with pytest.raises(JsonInvalid) as damaged:
        fix_files(out)
    assert damaged.value.hint_text.endswith(f"weightsmith verify {out} --fix --from COPY")


def test_a_changed_manifest_that_nothing_proves_stays(world: Path, tmp_path: Path) -> None:
    out = copied(world / "added", tmp_path / "out")
    harm(out, "flip")
    before = state(out)[1:]
    (left,) = fix_files(out).files
    assert (left.file, left.outcome) == (MANIFEST, "left")
    assert left.hint == f"weightsmith verify {out} --fix --from BASE+DELTA"
    (left,) = fix_files(out, source=f"{world / 'base'}+{world / 'delta'}").files
    assert left.hint == "weightsmith apply-delta --base BASE --delta DELTA -o NEW"
    assert state(out)[1:] == before


def test_a_damaged_manifest_of_a_copy_proves_nothing(world: Path, tmp_path: Path) -> None:
    out = copied(world / "added", tmp_path / "out")
    copy = copied(world / "added", tmp_path / "copy")
    harm(out, "gone")
    harm(copy, "flip")
    with pytest.raises(FixUnproved):
        fix_files(out, source=copy)
    manifest = json.loads((copy / MANIFEST).read_bytes())
    del manifest["own_digest"]
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(FixUnproved):
        fix_files(out, source=copy)


@pytest.mark.parametrize("how", ["gone", "flip"])
@pytest.mark.parametrize("kind", ["exact", "portable", "add"])
@pytest.mark.sampled(4)
def test_the_manifest_of_a_delta_comes_back_from_base_and_target(
    world: Path, tmp_path: Path, kind: str, how: str
) -> None:
    base, target = world / "base", world / "target"
    if kind == "add":
        target = write_model(tmp_path / "tuned", {n: trained(t) for n, t in load(base).items()})
    codec: Literal["exact", "add"] = "add" if kind == "add" else "exact"
    delta = make_delta(
        base,
        target,
        tmp_path / "delta",
        codec=codec,
        portable=kind == "portable",
        base_id="org/base@main" if how == "flip" else "",
    ).target
    whole = contents(delta)
    harm(delta, how)
    if how == "flip":
        weights = max(delta.glob("*.safetensors"))
        weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert fix_files(delta, source=target, base=base).complete
    assert contents(delta) == whole
    assert not hidden(delta)


def test_a_delta_whose_index_is_gone_is_told_as_such(world: Path, tmp_path: Path) -> None:
    delta = copied(world / "delta", tmp_path / "delta")
    (delta / "delta.safetensors.index.json").unlink()
    checks = {check.name: check for check in verify(delta).checks}
    assert checks["digests"].verdict == "FAIL"
    assert "delta.safetensors.index.json" in checks["digests"].details[0]
    assert checks["digests"].hint.startswith(f"weightsmith verify {delta} --fix")


def test_killed_at_any_step_the_manifest_can_still_be_found_again(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = copied(world / "applied", tmp_path / "out")
    source, whole = world / "applied-copy", contents(world / "applied")
    harm(out, "gone")
    (out / FIRST).write_bytes((out / FIRST).read_bytes()[:-1])
    harmed = contents(out)
    for step in killed_at_each_step(monkeypatch, lambda: fix_files(out, source=source)):
        assert MANIFEST not in contents(out) or read_manifest(out) is not None
        assert fix_files(out, source=source).complete
        assert contents(out) == whole, step
        (out / MANIFEST).unlink()
        (out / FIRST).write_bytes(harmed[FIRST])
    assert step >= 4

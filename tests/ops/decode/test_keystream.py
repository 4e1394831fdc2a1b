"""Encrypted releases: a key file as the stream, the published sha256 enforced."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests.support.file_releases import write_encrypted
from tests.support.folders import contents, copied
from weightsmith.engine.options import Options
from weightsmith.errors import (
    BaseFilesWrong,
    DecodedWrong,
    EncryptedInvalid,
    KeyWrong,
    NoBase,
    NoKey,
    OptionMeaningless,
)
from weightsmith.ops.apply_delta import apply_delta, plan_apply_delta

VECTOR = "point_alpaca_enc"
KEY = "consolidated.00.pth"
MIB = 1024 * 1024


@pytest.fixture
def vector(vectors: Path, tmp_path: Path) -> Path:
    """A copy of the vector that a test may change."""
    return copied(vectors / VECTOR, tmp_path / "vector")


def apply(delta: Path, key: Path, target: Path, **options: object) -> dict[str, bytes]:
    """All files that come out, but our own manifest."""
    apply_delta(None, delta, key=key, target=target, options=Options(**options))  # type: ignore[arg-type]
    found = contents(target)
    del found["weightsmith.json"]
    return found


@pytest.mark.parametrize("workers", [1, 4])
def test_every_byte_is_what_point_alpaca_encrypted(
    workers: int, vectors: Path, tmp_path: Path
) -> None:
    folder = vectors / VECTOR
    found = apply(folder / "delta", folder / "key" / KEY, tmp_path / "out", workers=workers)
    assert found == contents(folder / "expected")


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    "key_nbytes",
    [
        10 * MIB + 3,
        7,
        3 * MIB + 5,
        10 * MIB,
        13 * MIB,
        20 * MIB,
    ],
    ids=lambda nbytes: f"{nbytes}",
)
def test_the_key_is_read_on_chunk_by_chunk_and_begins_anew(key_nbytes: int, tmp_path: Path) -> None:
    """Data of 24 MiB and a bit meets short last chunks, whole ones, and the key's second round."""
    draw = np.random.default_rng(key_nbytes)
    key = draw.bytes(key_nbytes)
    files = {"big.dat": draw.bytes(24 * MIB + 11), "config.json": b"{}", "empty": b""}
    delta = write_encrypted(tmp_path / "delta", files, key)
    (tmp_path / "key").write_bytes(key)
    assert apply(delta, tmp_path / "key", tmp_path / "out") == files


def test_quantised_weights_of_a_format_of_their_own_are_just_files(tmp_path: Path) -> None:
    """As BELLE's GPTQ release."""
    files = {"llama7b-2m-8bit-128g.pt": bytes(1000), "config.json": b"{}"}
    delta = write_encrypted(tmp_path / "delta", files, b"key")
    (tmp_path / "key").write_bytes(b"key")
    assert apply(delta, tmp_path / "key", tmp_path / "out") == files
    again = apply_delta(None, delta, key=tmp_path / "key", target=tmp_path / "out")
    assert again.already_done


def test_a_wrong_key_is_found_before_anything_is_written(vector: Path, tmp_path: Path) -> None:
    wrong = tmp_path / KEY
    wrong.write_bytes(b"\xff" + (vector / "key" / KEY).read_bytes()[1:])
    with pytest.raises(KeyWrong) as caught:
        apply(vector / "delta", wrong, tmp_path / "out")
    assert caught.value.exit_code == 7
    assert not (tmp_path / "out").exists()


def test_a_key_that_is_wrong_further_on_is_found_by_the_sha256(tmp_path: Path) -> None:
    key = bytes(range(256)) * 100
    files = {"big.dat": bytes(20_000), "config.json": b"{}"}
    delta = write_encrypted(tmp_path / "delta", files, key)
    (tmp_path / "key").write_bytes(key[:10_000] + b"\xff" + key[10_001:])
    for verify in ("cache", "no"):
        with pytest.raises(DecodedWrong, match=r"big\.dat .*sha256"):
            apply(delta, tmp_path / "key", tmp_path / "out", verify=verify)
        assert not (tmp_path / "out").exists()


def test_an_empty_key_is_refused(vector: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"")
    with pytest.raises(KeyWrong, match="empty"):
        apply(vector / "delta", tmp_path / "key", tmp_path / "out")


def test_a_renamed_file_is_refused(vector: Path, tmp_path: Path) -> None:
    path = next((vector / "delta").glob("config.json.*"))
    path.rename(path.with_name(f"config.json.{'0' * 64}.enc"))
    with pytest.raises(EncryptedInvalid, match="name and its header"):
        apply(vector / "delta", vector / "key" / KEY, tmp_path / "out")


def test_a_file_shorter_than_its_header_is_refused(vector: Path, tmp_path: Path) -> None:
    path = next((vector / "delta").glob("config.json.*"))
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(EncryptedInvalid, match=r"config\.json"):
        apply(vector / "delta", vector / "key" / KEY, tmp_path / "out")


def test_two_files_for_one_name_are_refused(vector: Path, tmp_path: Path) -> None:
    write_encrypted(vector / "delta", {"config.json": b"{ }"}, (vector / "key" / KEY).read_bytes())
    with pytest.raises(EncryptedInvalid, match=r"decodes to config\.json too"):
        apply(vector / "delta", vector / "key" / KEY, tmp_path / "out")


def test_a_key_with_another_hash_than_the_releases_base_is_refused(tmp_path: Path) -> None:
    """The real catalogue: point-alpaca's key is LLaMA 7B's weight file."""
    key = bytes(range(256))
    delta = write_encrypted(tmp_path / "BELLE-LLaMA-7B-2M-enc", {"config.json": b"{}"}, key)
    (tmp_path / KEY).write_bytes(key)
    with pytest.raises(BaseFilesWrong) as caught:
        apply(delta, tmp_path / KEY, tmp_path / "out")
    assert any(KEY in line for line in caught.value.context)


def test_the_key_is_needed_and_only_here(vector: Path, vectors: Path, tmp_path: Path) -> None:
    with pytest.raises(NoKey):
        plan_apply_delta(None, vector / "delta", target=tmp_path / "out")
    vicuna = vectors / "vicuna_v1_1"
    with pytest.raises(OptionMeaningless, match="`key`"):
        plan_apply_delta(
            vicuna / "base",
            vicuna / "delta",
            key=vector / "key" / KEY,
            target=tmp_path / "out",
        )
    xor = vectors / "oasst_xor"
    with pytest.raises(OptionMeaningless, match="`key`"):
        plan_apply_delta(
            xor / "base", xor / "delta", key=vector / "key" / KEY, target=tmp_path / "out"
        )


def test_beside_the_key_neither_a_base_nor_another_delta_is_passed_over(
    vector: Path, vectors: Path, tmp_path: Path
) -> None:
    key, delta, vicuna = vector / "key" / KEY, vector / "delta", vectors / "vicuna_v1_1"
    with pytest.raises(OptionMeaningless, match="no use for `base` here"):
        plan_apply_delta(vicuna / "base", delta, key=key, target=tmp_path / "out")
    with pytest.raises(OptionMeaningless, match=f"no use for {vicuna / 'delta'} here"):
        plan_apply_delta(None, [vicuna / "delta", delta], key=key, target=tmp_path / "out")
    with pytest.raises(NoBase):
        plan_apply_delta(None, [delta, vicuna / "delta"], target=tmp_path / "out")


def test_the_name_of_a_result_is_the_whole_name_before_its_hash(tmp_path: Path) -> None:
    """The published script kept only what stands before the first dot."""
    name = "pytorch_model-00001-of-00003.part.bin.index.json"
    delta = write_encrypted(tmp_path / "delta", {name: b"{}"}, b"k")
    (tmp_path / "key").write_bytes(b"k")
    assert apply(delta, tmp_path / "key", tmp_path / "out") == {name: b"{}"}
    assert hashlib.sha256(b"{}").hexdigest() in next(delta.iterdir()).name

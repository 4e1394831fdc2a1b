"""Every byte counts: digests, the checksums of torch files, numbers, published sums."""

import io
import json
import random
import re
import zipfile
from pathlib import Path

import pytest
import torch

from tests.support.command_line import Weightsmith
from tests.support.story_models import WEIGHTS, Copy, Models, change_weights, edit, read
from weightsmith.engine.options import Options
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.verify.published_sum import sum_checkpoint
from weightsmith.ops.verify.verify import verify
from weightsmith.sources.recognise import open_model

SUM = 50637.1836
"""What Stanford published for Alpaca 7B."""


def flip(path: Path, offset: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


@pytest.mark.parametrize("flips", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_each_flipped_bit_in_any_shard_is_found(flips: int, models: Models, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    apply_delta(models.base, models.delta, target=folder, max_shard_nbytes=150_000)
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) >= 3
    assert verify(folder).passed(strict=True)
    rng = random.Random(7)
    missed, hit = [], set()
    for _ in range(flips):
        shard, bit = rng.choice(shards), rng.randrange(8)
        offset = rng.randrange(shard.stat().st_size)
        flip(shard, offset, bit)
        if verify(folder, options=Options(workers=1)).passed():
            missed.append((shard.name, offset, bit))
        flip(shard, offset, bit)
        hit.add(shard)
    assert not missed
    assert hit == set(shards)
    assert verify(folder).passed(strict=True)


def test_flipped_bit_is_laid_to_its_tensor(
    models: Models, copy: Copy, weightsmith: Weightsmith
) -> None:
    folder = copy(models.result)
    name = "model.layers.1.mlp.down_proj.weight"
    stored = open_model(folder).tensors[name].stored
    flip(folder / WEIGHTS, stored.offset + 17, 0)
    said = weightsmith("verify", folder)
    assert (said.code, said.verdict("digests")) == (1, "FAIL")
    assert f"tensor {name} differs" in said.out


@pytest.mark.parametrize("name", ["tokenizer.model", "generation_config.json", "config.json"])
def test_changed_and_missing_sidecars_are_named(
    models: Models, copy: Copy, weightsmith: Weightsmith, name: str
) -> None:
    folder = copy(models.result)
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    assert f"{name} was changed" in weightsmith("verify", folder).out
    (folder / name).unlink()
    said = weightsmith("verify", folder)
    assert said.verdict("digests") == "FAIL"
    assert name in said.out


def test_manifest_that_is_none_fails(models: Models, copy: Copy, weightsmith: Weightsmith) -> None:
    folder = copy(models.result)
    (folder / "weightsmith.json").write_text("{}")
    said = weightsmith("verify", folder)
    assert (said.code, said.verdict("digests")) == (1, "FAIL")


def test_without_a_manifest_digests_are_not_checked_and_strict_says_no(
    models: Models, weightsmith: Weightsmith
) -> None:
    said = weightsmith("verify", models.tuned)
    assert (said.code, said.verdict("digests")) == (0, "not checked")
    assert "there is no weightsmith.json" in said.out
    said = weightsmith("verify", models.tuned, "--strict")
    assert said.code == 1
    assert said.out.splitlines()[-1].startswith("FAIL")


def test_same_tensors_in_other_files_have_the_same_fingerprint(
    models: Models, tmp_path: Path
) -> None:
    apply_delta(models.base, models.delta, target=tmp_path / "out", max_shard_nbytes=150_000)
    assert verify(tmp_path / "out").fingerprint == verify(models.result).fingerprint


# --- the checksums that torch files carry ---------------------------------------------------------


def test_flipped_bit_in_a_torch_file_that_nobody_hashed_is_laid_to_its_tensor(
    models: Models, copy: Copy, weightsmith: Weightsmith
) -> None:
    assert weightsmith("verify", models.delta).verdict("checksums") == "pass"
    folder = copy(models.delta)
    checkpoint = open_model(folder)
    rng = random.Random(3)
    for name in rng.sample(sorted(checkpoint.tensors), 10):
        tensor = checkpoint.tensors[name]
        offset = tensor.stored.offset + rng.randrange(tensor.info.nbytes)
        flip(folder / tensor.file, offset, 5)
        said = weightsmith("verify", folder)
        assert (said.code, said.verdict("checksums")) == (1, "FAIL")
        assert f"{tensor.file}: the bytes of {name} do not have their CRC-32" in said.words
        flip(folder / tensor.file, offset, 5)
    assert weightsmith("verify", folder).verdict("checksums") == "pass"


def test_torch_files_without_checksums_are_not_checked(
    models: Models, copy: Copy, weightsmith: Weightsmith
) -> None:
    folder = copy(models.delta)
    torch.serialization.set_crc32_options(compute_crc32=False)
    try:
        for path in folder.glob("*.bin"):
            torch.save(torch.load(path, weights_only=True), path)
    finally:
        torch.serialization.set_crc32_options(compute_crc32=True)
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        assert not archive.infolist()[-1].CRC or not all(i.CRC for i in archive.infolist())
    said = weightsmith("verify", folder)
    assert said.verdict("checksums") == "not checked"
    assert "written without one" in said.out


# --- numbers, and another checkpoint --------------------------------------------------------------


def test_nan_and_infinity_are_counted_and_laid_to_their_tensor(
    models: Models, copy: Copy, weightsmith: Weightsmith
) -> None:
    folder = copy(models.tuned)
    weights = read(folder)
    weights["model.norm.weight"][:3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    change_weights(folder, lambda _: weights)
    said = weightsmith("verify", folder)
    assert (said.code, said.verdict("numbers")) == (1, "FAIL")
    assert "model.norm.weight holds 1 NaN and 2 infinite values" in said.out


def test_against_says_equal_or_what_differs(
    models: Models, copy: Copy, weightsmith: Weightsmith
) -> None:
    other = copy(models.result)
    said = weightsmith("verify", models.result, "--against", other)
    assert (said.code, said.verdict("against")) == (0, "pass")
    name = "model.layers.0.self_attn.q_proj.weight"
    change_weights(
        other,
        lambda w: {
            **{n: t for n, t in w.items() if n != name},
            "lm_head.weight": -w["lm_head.weight"],
        },
    )
    said = weightsmith("verify", models.result, "--against", other)
    assert (said.code, said.verdict("against")) == (1, "FAIL")
    assert f"{name} is not in {other}" in said.words
    assert "lm_head.weight differs" in said.out
    said = weightsmith("verify", models.result, "--against", other.parent / "nothing")
    assert said.code == 3


def test_against_tells_another_dtype(models: Models, copy: Copy, weightsmith: Weightsmith) -> None:
    other = copy(models.result)
    change_weights(other, lambda w: {n: t.bfloat16() for n, t in w.items()})
    said = weightsmith("verify", models.result, "--against", other)
    assert "F16 [80] against BF16 [80]" in said.words


# --- sums -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alpaca(vectors: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stanford's delta, applied."""
    target = tmp_path_factory.mktemp("alpaca") / "alpaca"
    folder = vectors / "alpaca_wdiff"
    apply_delta(folder / "base", folder / "delta", target=target, new_rows="mean")
    return target


def test_sums_of_the_original_script_are_reproduced(alpaca: Path, vectors: Path) -> None:
    folder = vectors / "alpaca_wdiff"
    theirs = json.loads((folder / "expected" / "sums.json").read_bytes())
    inputs = {role: open_model(folder / role) for role in ("base", "delta")}
    ours = sum_checkpoint(open_model(alpaca), None, inputs, threads=2)
    assert ours.float64 == pytest.approx(theirs["sum_without_inv_freq_float64"], rel=1e-9)
    assert ours.float64 + ours.inv_freq == pytest.approx(theirs["sum_all_float64"], rel=1e-9)
    assert ours.float32 + ours.inv_freq == pytest.approx(theirs["sum_all_float32"], rel=1e-6)


def test_published_sum_that_does_not_come_out_fails_with_both_numbers(
    alpaca: Path, vectors: Path, copy: Copy, weightsmith: Weightsmith
) -> None:
    assert weightsmith("verify", alpaca).verdict("sum") == ""
    folder = copy(alpaca)
    edit(folder / "weightsmith.json", release="alpaca-7b", own_digest="")
    theirs = json.loads((vectors / "alpaca_wdiff" / "expected" / "sums.json").read_bytes())
    said = weightsmith("verify", folder)
    assert (said.code, said.verdict("sum"), said.verdict("digests")) == (1, "FAIL", "pass")
    found = re.search(
        r"([\d.]+) with inv_freq \(([\d.]+) without\), published ([\d.]+)", said.words
    )
    assert found, said.words
    total, without, published = map(float, found.groups())
    assert total == pytest.approx(theirs["sum_all_float64"], abs=0.001)  # the buffers are computed
    assert without == pytest.approx(theirs["sum_without_inv_freq_float64"], abs=0.0001)
    assert published == SUM


def test_published_sum_that_comes_out_passes(
    alpaca: Path, copy: Copy, weightsmith: Weightsmith
) -> None:
    folder = copy(alpaca)
    edit(folder / "weightsmith.json", release="alpaca-7b", own_digest="")
    inv_freq = sum_checkpoint(open_model(folder), None, {}, threads=1)
    weights = read(folder)
    lacking = SUM - inv_freq.float64 - inv_freq.inv_freq
    weights["model.norm.weight"] += lacking / weights["model.norm.weight"].numel()
    change_weights(folder, lambda _: weights)
    said = weightsmith("verify", folder)
    assert said.verdict("sum") == "pass"
    assert said.verdict("digests") == "FAIL"  # which no sum can stand in for

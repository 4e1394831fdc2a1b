"""Restored exactly, then cast once: what --dtype makes of an exact delta."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.delta_models import SIDECARS, base_tensors, target_tensors, trained, weights
from tests.support.folders import CONFIG, assert_same_bits, contents, load, write_model
from weightsmith.checkpoint.opening import open_checkpoint
from weightsmith.engine.options import Options
from weightsmith.errors import DeltaInvalid, WeightsmithError, WrongBase
from weightsmith.ops.apply_delta import apply_delta, plan_apply_delta
from weightsmith.ops.make_delta import make_delta
from weightsmith.sources.sums import DTypeChoice

DTYPES: dict[DTypeChoice, torch.dtype] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}
UP = "model.layers.0.up.weight"
"""A tensor of two spans."""


@pytest.fixture
def pair(made: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A base, and the delta from it."""
    for side in ("base", "delta"):
        shutil.copytree(made / side, tmp_path / side)
    return tmp_path / "base", tmp_path / "delta"


def cast(tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}


@pytest.mark.parametrize("dtype", DTYPES)
def test_floats_are_restored_and_rounded_once(
    pair: tuple[Path, Path], tmp_path: Path, dtype: DTypeChoice
) -> None:
    outcome = apply_delta(*pair, target=tmp_path / "out", dtype=dtype)
    assert_same_bits(load(tmp_path / "out"), cast(target_tensors(), DTYPES[dtype]))
    config = json.loads((tmp_path / "out" / "config.json").read_bytes())
    assert config == {**CONFIG, "torch_dtype": dtype}
    assert (tmp_path / "out" / "README.md").read_bytes() == SIDECARS["README.md"]
    assert apply_delta(*pair, target=tmp_path / "out", dtype=dtype).already_done
    assert outcome.manifest.delta is None


def test_the_bases_dtype_is_taken_tensor_by_tensor(pair: tuple[Path, Path], tmp_path: Path) -> None:
    apply_delta(*pair, target=tmp_path / "out", dtype="base")
    expected = target_tensors()
    name = "model.layers.0.recast"
    assert expected[name].dtype == torch.bfloat16
    expected[name] = expected[name].to(base_tensors()[name].dtype)
    assert_same_bits(load(tmp_path / "out"), expected)


def test_a_tensor_that_the_base_lacks_takes_the_dtype_of_most_of_it(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", {"a": weights(90, dtype=torch.float16)})
    tensors = {"a": trained(weights(90, dtype=torch.float16)), "new": weights(7)}
    target = write_model(tmp_path / "target", tensors)
    make_delta(base, target, tmp_path / "delta")
    apply_delta(base, tmp_path / "delta", target=tmp_path / "out", dtype="base")
    assert_same_bits(load(tmp_path / "out"), cast(tensors, torch.float16))


@pytest.mark.parametrize("dtype", ["delta", "base", "bfloat16"])
def test_files_come_back_byte_for_byte_where_there_is_nothing_to_cast(
    tmp_path: Path, dtype: DTypeChoice
) -> None:
    tensors = {"a": weights(90, 20), "b": weights(50), "ids": torch.arange(9)}
    changed = {n: trained(t) if t.is_floating_point() else t for n, t in tensors.items()}
    base = write_model(tmp_path / "base", tensors)
    target = write_model(tmp_path / "target", changed, shards=2)
    make_delta(base, target, tmp_path / "delta")
    apply_delta(base, tmp_path / "delta", target=tmp_path / "out", dtype=dtype)
    assert contents(target).items() <= contents(tmp_path / "out").items()


def test_the_plan_names_the_inputs_and_what_is_made_of_them(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    plans = [
        plan_apply_delta(*pair, target=tmp_path / "out", dtype=dtype).plan
        for dtype in ("float16", "float32")
    ]
    assert plans[0].inputs == plans[1].inputs
    assert plans[0].digest != plans[1].digest
    rules = {tensor.codec for tensor in plans[0].tensors}
    assert rules == {"cast@1", "copy@1"}
    names = {file.name for file in plans[0].inputs[0].files}
    assert {"model-00001-of-00002.safetensors", "delta-00001-of-00002.safetensors"} <= names


def test_the_bytes_do_not_depend_on_workers(pair: tuple[Path, Path], tmp_path: Path) -> None:
    made = []
    for number, options in enumerate((Options(workers=1), Options(workers=4))):
        out = tmp_path / f"out-{number}"
        apply_delta(*pair, target=out, dtype="float32", options=options)
        made.append(contents(out))
    assert made[0] == made[1]


# --- the target's digests are checked all the same ------------------------------------------------


def refused(base: Path, delta: Path, dtype: DTypeChoice) -> WeightsmithError:
    out = delta.parent / "out"
    with pytest.raises(WeightsmithError) as caught:
        apply_delta(base, delta, target=out, dtype=dtype)
    assert not out.exists()
    return caught.value


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_changed_bit_of_the_base_is_found_and_its_tensor_named(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, dtype: DTypeChoice
) -> None:
    monkeypatch.setattr("weightsmith.sources.exact._GLANCE_NBYTES", 0)  # as with large tensors
    tensors = base_tensors()
    tensors[UP].view(torch.int16)[1099, 999] ^= 1
    write_model(pair[0], tensors, shards=2)
    error = refused(*pair, dtype)
    assert isinstance(error, WrongBase)
    assert error.context == (UP,)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_payload_that_decodes_to_something_else_is_found(
    pair: tuple[Path, Path], dtype: DTypeChoice
) -> None:
    """Where it is stored as it is, nothing of the format tells a changed byte."""
    base, delta = pair
    tensors = open_checkpoint(delta, kind="exact-delta").tensors
    stored = tensors["model.layers.0.new"]
    path = delta / stored.file
    raw = bytearray(path.read_bytes())
    raw[stored.stored.offset + stored.info.nbytes - 1] ^= 1
    path.write_bytes(raw)
    error = refused(base, delta, dtype)
    assert isinstance(error, DeltaInvalid)
    assert "model.layers.0.new" in str(error)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["model.layers.0.norm.weight", UP, "model.layers.0.ids"])
def test_a_record_that_promises_something_else_is_found(
    pair: tuple[Path, Path], dtype: DTypeChoice, name: str
) -> None:
    """Copied, decoded in two spans, and not cast at all."""
    from weightsmith.checkpoint.digest import fingerprint

    path = pair[1] / "weightsmith.json"
    document = json.loads(path.read_bytes())
    target = document["delta"]["target"]
    for tensor in target["tensors"]:
        if tensor["name"] == name:
            tensor["digest"] = "00" * 32
    target["fingerprint"] = fingerprint({t["name"]: t["digest"] for t in target["tensors"]})
    path.write_text(json.dumps(document))
    error = refused(*pair, dtype)
    assert isinstance(error, DeltaInvalid)
    assert name in str(error)

"""Tensors that old transformers saved and no loader reads bind a delta to no form of its base."""

from pathlib import Path

import pytest
import torch

from tests.support.delta_models import trained, weights
from tests.support.folders import contents, write_model
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.convert import convert
from weightsmith.ops.make_delta import CodecChoice, make_delta

BUFFERS = {
    **{f"model.layers.{n}.self_attn.rotary_emb.inv_freq": torch.arange(4.0) for n in range(2)},
    "model.layers.0.attn.bias": torch.ones(1, 1, 8, 8).tril(),
    "model.layers.0.attn.masked_bias": torch.tensor(-1e9),
}


@pytest.mark.parametrize("codec", ["exact", "add"])
@pytest.mark.parametrize("made_on, applied_to", [("old", "converted"), ("converted", "old")])
def test_a_delta_applies_to_its_base_with_and_without_buffers(
    tmp_path: Path, made_on: str, applied_to: str, codec: CodecChoice
) -> None:
    tensors = {f"model.layers.{n}.up.weight": weights(30, 20, seed=n).float() for n in range(5)}
    tuned = {name: trained(each) for name, each in tensors.items()}
    write_model(tmp_path / "old", tensors | BUFFERS, suffix="bin")
    convert(tmp_path / "old", tmp_path / "converted")
    target = write_model(tmp_path / "target", tuned | BUFFERS)
    delta = make_delta(tmp_path / made_on, target, tmp_path / "delta", codec=codec).target
    made = apply_delta(tmp_path / applied_to, delta, target=tmp_path / "out", force_kind=True)
    if codec == "exact":
        assert contents(target).items() <= contents(tmp_path / "out").items()
    else:
        assert made.manifest.tensors.keys() == tensors.keys()

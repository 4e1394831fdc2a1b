"""Model or delta: told by a few small tensors, whatever else they may be."""

from pathlib import Path

import pytest
import torch

from tests.support.bad_input.case import WEIGHTS, weights, write_base, write_delta, write_sparse
from tests.support.folders import save
from weightsmith.checkpoint.kind import guess_kind
from weightsmith.checkpoint.opening import open_checkpoint

BUFFER = "model.layers.0.self_attn.rotary_emb.inv_freq"


def test_a_model_and_a_delta_are_told_apart(tmp_path: Path) -> None:
    assert guess_kind(open_checkpoint(write_base(tmp_path))).kind == "model"
    assert guess_kind(open_checkpoint(write_delta(tmp_path))).kind == "delta"


@pytest.mark.parametrize("dtype, kind", [(torch.float32, "delta"), (torch.int64, "model")])
def test_a_buffer_that_holds_no_floats_says_nothing(
    dtype: torch.dtype, kind: str, tmp_path: Path
) -> None:
    folder = write_base(tmp_path)
    save(folder / WEIGHTS, weights() | {BUFFER: torch.zeros(2, dtype=dtype)})
    assert guess_kind(open_checkpoint(folder)).kind == kind


@pytest.mark.parametrize("numel", [0, 10**11])
def test_a_norm_of_no_elements_or_of_too_many_says_nothing(numel: int, tmp_path: Path) -> None:
    write_sparse(tmp_path / WEIGHTS, {"model.norm.weight": ("F16", 2, (numel,))})
    assert guess_kind(open_checkpoint(tmp_path)).kind == "unknown"

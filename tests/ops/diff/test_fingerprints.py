"""Fingerprints of two models that were compared: those that `verify` gives each of them."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.diff_models import base, tuned
from tests.support.folders import write_model
from weightsmith import verify
from weightsmith.checkpoint.digest import SPAN_NBYTES
from weightsmith.ops.diff import diff

LARGE = SPAN_NBYTES // 2 + 5
"""Elements of a tensor that has two spans of 16 bits each, and more of 32."""


def half(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).half()


HEADLESS = {f"h.{n}.ln_1.weight": half(3) for n in range(3)}
CASES = {
    "changed, with buffers": (base(), tuned()),
    "of two spans": ({"w": half(LARGE)}, {"w": half(LARGE) + 1}),
    "another dtype": ({"w": half(LARGE)}, {"w": half(LARGE).bfloat16()}),
    "wider elements": ({"w": half(LARGE)}, {"w": half(LARGE).float()}),
    "more rows": ({"w": half(4, 2)}, {"w": half(5, 2)}),
    "added and removed": ({"a": half(3)}, {"b": half(3)}),
    "empty": (
        {"w": half(0), "x": half(1), "y": half(2)},
        {"w": half(0), "x": half(1), "y": half(3)},
    ),
    "other names": (HEADLESS, {f"transformer.{name}": each for name, each in HEADLESS.items()}),
}


@pytest.mark.parametrize("case", CASES)
def test_they_are_those_of_verify(case: str, tmp_path: Path) -> None:
    check(tmp_path, *CASES[case])


def test_they_are_those_of_the_files_where_a_quantised_model_is_compared_as_floats(
    vectors: Path,
) -> None:
    quantised = vectors / "merge" / "q_awq" / "base"
    floats = vectors / "lora" / "plain_fp16" / "base"
    found = diff(quantised, floats, fingerprints=True)
    assert [side.fingerprint for side in found.sides] == [
        verify(each).fingerprint for each in (quantised, floats)
    ]


def test_they_are_taken_only_if_asked_for(tmp_path: Path) -> None:
    folder = write_model(tmp_path, {"w": half(3)})
    assert [side.fingerprint for side in diff(folder, folder).sides] == ["", ""]


def check(folder: Path, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
    sides = [write_model(folder / name, each) for name, each in (("a", a), ("b", b))]
    for one, other in (sides, sides[::-1]):
        found = diff(one, other, fingerprints=True)
        marks = [side.fingerprint for side in found.sides]
        assert marks == [verify(each).fingerprint for each in (one, other)]
        assert [side.place for side in found.sides] == [str(one), str(other)]

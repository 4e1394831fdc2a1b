"""Models with and without their heads are told by their names, and nothing else is renamed."""

from pathlib import Path

import pytest
import torch

from tests.support.folders import write_model
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.opening import open_checkpoint
from weightsmith.checkpoint.renamed import named_like

BARE = ["wte.weight", "h.0.ln.weight", "h.0.ln.bias", "h.1.ln.weight"]
FULL = [f"transformer.{name}" for name in BARE]


def opened(folder: Path, names: list[str]) -> Checkpoint:
    tensors = {name: torch.full((3,), float(number)) for number, name in enumerate(names)}
    return open_checkpoint(write_model(folder, tensors))


@pytest.mark.parametrize(
    "own, wanted, expected",
    [
        (BARE, FULL, FULL),
        (FULL, BARE, BARE),
        ([*BARE, "lm_head.weight"], FULL, [*FULL, "lm_head.weight"]),
        (BARE, [*FULL, "lm_head.weight"], FULL),
        ([*FULL, "lm_head.weight"], [*BARE, "lm_head.weight"], [*BARE, "lm_head.weight"]),
        (BARE, BARE, BARE),
        (BARE, [*BARE, *FULL], BARE),
        (BARE, FULL[:2], BARE),  # not most of them
        (BARE, [f"a.b.{name}" for name in BARE], BARE),  # two words
        ([*BARE, *FULL], FULL, [*BARE, *FULL]),
        (["a", "x.a"], ["x.a", "x.x.a"], ["a", "x.a"]),
        (BARE, [], BARE),
    ],
)
def test_names_gain_or_lose_a_word_where_that_makes_most_of_them_fit(
    own: list[str], wanted: list[str], expected: list[str], tmp_path: Path
) -> None:
    before = opened(tmp_path / "in", own)
    after = named_like(before, wanted)
    assert sorted(after.tensors) == sorted(expected)
    assert (after is before) == (own == expected)
    for old, new in zip(own, expected, strict=True):
        assert after.tensors[new].info.name == new
        assert after.read_small(new) == before.read_small(old)


def test_it_is_said(tmp_path: Path) -> None:
    notes = named_like(opened(tmp_path, BARE), FULL).notes
    assert notes == ("its tensors' names are read with transformer. before them",)

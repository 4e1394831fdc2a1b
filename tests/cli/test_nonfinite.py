"""Values that are no numbers, as a person meets them."""

import json
from pathlib import Path

import torch

from tests.support.command_line import Weightsmith
from tests.support.folders import write_model


def test_the_command_says_so_and_has_a_way_to_insist(
    weightsmith: Weightsmith, tmp_path: Path
) -> None:
    weights = {"model.norm.weight": torch.ones(4).half(), "w": torch.ones(9, 4).half()}
    write_model(tmp_path / "base", weights)
    spoilt = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    spoilt["w"][0, 0] = float("nan")
    write_model(tmp_path / "delta", spoilt)
    sides = ("--base", tmp_path / "base", "--delta", tmp_path / "delta")
    args = ("apply-delta", *sides, "--target", tmp_path / "out")
    said = weightsmith(*map(str, args))
    assert said.code == 6
    assert "[not-finite]" in said.err
    assert "--allow-nonfinite" in said.err
    said = weightsmith(*map(str, args), "--allow-nonfinite", "--json")
    assert said.code == 0
    assert "w (1 NaN)" in json.loads(said.out)["doubts"][0]

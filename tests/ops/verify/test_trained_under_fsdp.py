"""A model that two processes really trained under FSDP2 is put together, and talks."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.command_line import Weightsmith
from tests.support.paths import ROOT
from tests.support.story_models import Models
from weightsmith.checkpoint.opening import open_checkpoint
from weightsmith.ops.diff import diff

WORLD = 2


@pytest.mark.slow
def test_what_two_processes_trained_is_put_together_and_passes_its_smoke_test(
    models: Models, weightsmith: Weightsmith, tmp_path: Path
) -> None:
    out = tmp_path / "actor"
    out.mkdir()
    script = [sys.executable, "-m", "tests.support.fsdp_run"]
    works = [
        subprocess.Popen([*script, str(rank), str(WORLD), models.base, out], cwd=ROOT)
        for rank in range(WORLD)
    ]
    assert [work.wait(timeout=600) for work in works] == [0] * WORLD
    gathered = torch.load(out / "gathered.bin")
    (out / "gathered.bin").unlink()
    shutil.copytree(
        models.base, out / "huggingface", ignore=shutil.ignore_patterns("*.safetensors")
    )

    said = weightsmith("convert", out, tmp_path / "trained", "--smoke")
    assert said.code == 0, said.err
    said = weightsmith("verify", tmp_path / "trained", "--smoke", "--max-new-tokens", "12")
    assert said.code == 0, said.err
    found = open_checkpoint(tmp_path / "trained")
    assert found.tensors.keys() == gathered.keys()
    for name, tensor in gathered.items():
        assert found.read_small(name) == tensor.numpy().tobytes(), name

    said = weightsmith(
        *("convert", out / "dcp", tmp_path / "again"),
        *("--sidecars-from", models.base, "--dtype", "bfloat16"),
    )
    assert said.code == 0, said.err
    assert diff(out, out / "dcp").equal
    assert not diff(out, models.base).equal

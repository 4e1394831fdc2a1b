"""The program of docs/how-to/python.md runs from its first line to its last."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.folders import copied
from tests.support.hub.client import Client, usual_env
from tests.support.hub.server import Hub
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "how-to" / "python.md"


@pytest.mark.slow
def test_the_program_of_the_page_runs(
    hub: Hub, client: Client, vectors: Path, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    copied(vectors / "vicuna_v1_1" / "base", here / "llama-7b")
    copied(vectors / "vicuna_v1_1" / "delta", here / "vicuna-7b-delta-v1.1")
    copied(vectors / "lora" / "plain_fp16" / "base", here / "lora-base")
    copied(vectors / "lora" / "plain_fp16" / "adapter", here / "lora-adapter")
    hub.add("org/model", vectors / "vicuna_v1_1" / "base")
    program = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    env = {**usual_env(hub), "HF_HOME": str(client.home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=here,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Outcome(" in done.stdout
    assert "3 source-not-found" in done.stdout
    assert not (here / "x").exists()


def test_the_page_names_every_public_function() -> None:
    import weightsmith

    text = PAGE.read_text()
    functions = [name for name in weightsmith.__all__ if name[0].islower() and "plan_" not in name]
    assert [name for name in functions if f"{name}(" not in text] == []

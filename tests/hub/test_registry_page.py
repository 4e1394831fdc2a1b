"""The commands of docs/how-to/registry.md, word for word: less is kept, and nothing is lost."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.delta_models import trained, weights
from tests.support.folders import contents, write_model
from tests.support.hub.client import Client, usual_env
from tests.support.hub.server import Hub
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "how-to" / "registry.md").read_text()
COMMANDS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
(MODELS,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
BASE, OTHER = "Qwen/Qwen3-8B", "Qwen/Qwen3-8B-Base"


@pytest.mark.slow
def test_the_page_shrinks_a_registry_and_gives_a_model_back(
    hub: Hub, client: Client, tmp_path: Path
) -> None:
    shapes = {"model.embed_tokens.weight": (400, 300), "model.layers.0.up.weight": (500, 400)}
    config = {"torch_dtype": "bfloat16", "vocab_size": 400}
    base = {name: weights(*shape, seed=len(name)) for name, shape in shapes.items()}
    norm = {"model.norm.weight": weights(300).abs() + 1}
    hub.add(BASE, write_model(tmp_path / "base", base | norm, config=config))
    other = {name: trained(each, change=1.5, seed=5) for name, each in base.items()}
    hub.add(OTHER, write_model(tmp_path / "other", other | norm, config=config))
    published = {}
    for seed, name in enumerate(MODELS.split()):
        tuned = {key: trained(each, seed=seed) for key, each in base.items()}
        folder = write_model(tmp_path / name, tuned | norm, config=config)
        (folder / "README.md").write_text(f"# {name}\n")
        hub.add(name, folder)
        published[name] = contents(folder)

    here = tmp_path / "here"
    (here / "bin").mkdir(parents=True)
    (here / "models.txt").write_text(MODELS)
    command = here / "bin" / "weightsmith"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m weightsmith "$@"\n')
    command.chmod(0o755)
    env = {**usual_env(hub), "HF_HOME": str(client.home), "PYTHONPATH": str(ROOT)}
    env |= {
        "HF_HUB_DISABLE_XET": "1",
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "COLUMNS": "80",
    }

    def run(commands: str) -> str:
        done = subprocess.run(
            ["bash", "-e", "-c", commands],
            cwd=here,
            env=env,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    find, fetch, make, verify, clean, keep, restore = COMMANDS
    said = run(find)
    assert said.rindex(BASE + " ") < said.rindex(OTHER)
    run(fetch)
    run(make)
    assert not (here / "failed.txt").exists()
    run(verify)
    before = nbytes_in(client.cache)
    said = run(clean)
    assert fits(said)
    assert "3 of 4 rows" in said
    raw = sum(len(each) for files in published.values() for each in files.values())
    after = nbytes_in(client.cache)
    assert raw - 4000 < before - after <= raw  # the pins are what is not freed
    deltas = sum(path.stat().st_size for path in (here / "deltas").rglob("*") if path.is_file())
    assert deltas < 0.5 * raw
    said = run(keep)
    assert fits(said)
    said = " ".join(said.split())
    assert "kept: acme/support-1@" in said
    assert "and 2 other models are rebuilt from it" in said

    hub.forget()  # nothing is fetched for what follows
    env["HF_HUB_OFFLINE"] = "1"
    said = run(restore)
    model = published["acme/support-2"]
    assert hashlib.sha256(model["model.safetensors"]).hexdigest() in said
    assert model.items() <= contents(here / "support-2").items()


def fits(screen: str) -> bool:
    """Whether it is for a terminal of 80 columns; a path is never broken."""
    return all(len(line) <= 80 or line.startswith("/") for line in screen.splitlines())


def nbytes_in(folder: Path) -> int:
    """What its files take, each counted once."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files)

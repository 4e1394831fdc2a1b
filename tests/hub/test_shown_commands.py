"""The commands that the pages show are run as they stand there, and print what the pages show."""

import json
import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest

from tests.support.hub.client import usual_env
from tests.support.hub.server import Hub
from tests.support.notebook import program_of
from tests.support.paths import ROOT
from tests.support.scenes import SCENES, Cast, hub_alone
from tests.support.shown import Block, blocks, lines_missing

RUN = {
    page: [*found]
    for page, found in groupby(
        (block for block in blocks() if not block.reason), key=lambda block: block.page
    )
}


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Cast:
    return Cast.trained(tmp_path_factory.mktemp("cast"))


def run(block: Block, here: Path, hub: Hub) -> str:
    """Run its commands in a shell, in `here`; what they print."""
    done = shell(["bash", "-euc", block.commands], here, hub)
    assert done.returncode == block.code, done.stdout
    return done.stdout


def shell(argv: list[str], here: Path, hub: Hub) -> subprocess.CompletedProcess[str]:
    """Run a program in `here` as a user of `hub` would; both streams in one."""
    beside = str(Path(sys.executable).parent)
    env = usual_env(hub) | {
        "HF_HOME": str(here.parent / "hf"),
        "PATH": os.pathsep.join([beside, os.environ["PATH"]]),
        "HF_HUB_OFFLINE": "0",
    }
    return subprocess.run(
        argv,
        cwd=here,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page_do_what_it_says(
    page: str, cast: Cast, hub: Hub, tmp_path: Path
) -> None:
    here = tmp_path
    for number, block in enumerate(RUN[page]):
        if not number or not block.goes_on:
            hub.forget()
            here = tmp_path / str(number) / "here"
            here.mkdir(parents=True)
            SCENES[page](cast, here, hub)
        said = run(block, here, hub)
        assert lines_missing(block.expected, said) == [], f"{block} prints\n{said}"


NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.name)
def test_the_cells_of_a_notebook_run_from_the_first_to_the_last(
    notebook: Path, cast: Cast, hub: Hub, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    hub_alone(cast, here, hub)
    done = shell([sys.executable, "-c", program_of(notebook)], here, hub)
    assert done.returncode == 0, done.stdout
    assert "USER: What is a fox? ASSISTANT: " in done.stdout


def test_notebooks_hold_no_outputs() -> None:
    assert NOTEBOOKS
    for notebook in NOTEBOOKS:
        cells = json.loads(notebook.read_text("utf-8"))["cells"]
        assert [cell.get("outputs") for cell in cells if cell.get("outputs")] == []

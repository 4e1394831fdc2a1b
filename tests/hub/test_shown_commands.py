"""The commands that the pages show are run as they stand there, and print what the pages show."""

import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest

from tests.support.hub.client import usual_env
from tests.support.hub.server import Hub
from tests.support.scenes import SCENES, Cast
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
    beside = str(Path(sys.executable).parent)
    env = usual_env(hub) | {
        "HF_HOME": str(here.parent / "hf"),
        "PATH": os.pathsep.join([beside, os.environ["PATH"]]),
        "HF_HUB_OFFLINE": "0",
    }
    done = subprocess.run(
        ["bash", "-euc", block.commands],
        cwd=here,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == block.code, done.stdout
    return done.stdout


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

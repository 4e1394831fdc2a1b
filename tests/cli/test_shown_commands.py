"""Every command of every page is one that weightsmith understands, as it stands there."""

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from tests.support.scenes import SCENES
from tests.support.shown import Block, blocks
from weightsmith.cli.main import group, options_last
from weightsmith.cli.output import Output

BLOCKS = [*blocks()]


def command_lines(block: Block) -> Iterator[list[str]]:
    """The words of each command of ours."""
    for shown in block.commands.replace("\\\n", " ").splitlines():
        line = re.sub(r"\$\{?\w+\}?", "1", shown)  # a shell variable may be a number
        words = shlex.split(line.replace("<(", "").replace(")", " )"), comments=True)
        while "weightsmith" in words and words[0] not in {"pip", "man"}:
            words = words[words.index("weightsmith") + 1 :]
            ends = (at for at, word in enumerate(words) if word in {"|", "||", ">", "&&", ";", ")"})
            yield words[: next(ends, len(words))]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_command_that_is_shown_is_understood(block: Block) -> None:
    for words in command_lines(block):
        args = options_last(words)
        with group.make_context("weightsmith", list(args), obj=Output(json_mode=False)) as context:
            name, command, rest = group.resolve_command(context, list(args))
            assert name
            assert command
            try:
                command.make_context(name, rest, parent=context).close()
            except click.BadParameter as error:
                assert "does not exist" in error.message  # noqa: PT017  (no file is here)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_run_or_says_why_not(block: Block) -> None:
    assert block.reason or block.page in SCENES


def test_every_scene_is_played() -> None:
    played = {block.page for block in BLOCKS if not block.reason}
    assert SCENES.keys() - played == set()


def test_a_mistake_would_be_found() -> None:
    wrong = Block("page.md", 1, "weightsmith convert ./a ./b --dtypo bf16\n", "", "", 0, False)
    with pytest.raises(click.UsageError):
        test_a_command_that_is_shown_is_understood(wrong)

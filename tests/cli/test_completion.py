"""Completing command lines, as the script of ``weightsmith completion`` asks for it."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.support.command_line import Weightsmith


def answers(*words: str) -> list[str]:
    """What a bash is told that completes the last of `words`."""
    asked = {
        "_WEIGHTSMITH_COMPLETE": "bash_complete",
        "COMP_WORDS": "\n".join(["weightsmith", *words]),
        "COMP_CWORD": str(len(words)),
    }
    command = [sys.executable, "-m", "weightsmith"]
    done = subprocess.run(
        command, env=os.environ | asked, capture_output=True, text=True, check=True
    )
    assert not done.stderr
    return done.stdout.splitlines()


def test_commands_options_and_values_are_completed() -> None:
    assert answers("make") == ["plain,make-delta"]
    assert "plain,--low-cpu-mem" in answers("apply-delta", "--lo")
    assert answers("convert", "--dtype", "bf") == ["plain,bfloat16"]


@pytest.mark.parametrize(
    "words", [("inspect",), ("apply-delta", "--base"), ("apply-delta",)], ids=" ".join
)
def test_a_source_is_completed_by_aliases_and_directories(words: tuple[str, ...]) -> None:
    assert {"dir,llama-7", "plain,llama-7b"} <= {*answers(*words, "llama-7")}
    assert "plain,lmsys/vicuna-7b-delta-v1.1" in answers(*words, "lmsys/vicuna-7b")


def test_topics_of_help_are_completed() -> None:
    assert answers("help", "shard-tr") == ["plain,shard-truncated"]
    assert answers("help", "how-to/ch") == ["plain,how-to/chains"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_that_its_shell_understands(weightsmith: Weightsmith, shell: str) -> None:
    said = weightsmith("completion", shell)
    assert said.code == 0
    assert "_WEIGHTSMITH_COMPLETE" in said.out
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=said.out, text=True, check=True)

"""Completing command lines, as the script of ``weightsmith completion`` asks for it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support.command_line import Weightsmith
from weightsmith.cli.main import main

Answers = Callable[..., list[str]]


def asked(*words: str) -> dict[str, str]:
    """The environment in which a bash asks to complete the last of `words`."""
    return {
        "_WEIGHTSMITH_COMPLETE": "bash_complete",
        "COMP_WORDS": "\n".join(["weightsmith", *words]),
        "COMP_CWORD": str(len(words)),
    }


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Answers:
    """What a bash is told."""

    def told(*words: str) -> list[str]:
        for name, value in asked(*words).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit, match="0"):
            main()
        out, err = capsys.readouterr()
        assert not err
        return out.splitlines()

    return told


def test_a_process_of_its_own_answers() -> None:
    command = [sys.executable, "-m", "weightsmith"]
    done = subprocess.run(
        command,
        env=os.environ | asked("make-delta", "--ta"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("plain,--target\n", "")


def test_commands_options_and_values_are_completed(answers: Answers) -> None:
    assert answers("make") == ["plain,make-delta"]
    assert "plain,--low-cpu-mem" in answers("apply-delta", "--lo")
    assert answers("convert", "--dtype", "bf") == ["plain,bfloat16"]


@pytest.mark.parametrize(
    "words", [("inspect",), ("apply-delta", "--base"), ("apply-delta",)], ids=" ".join
)
def test_a_source_is_completed_by_aliases_and_directories(
    words: tuple[str, ...], answers: Answers
) -> None:
    assert {"dir,llama-7", "plain,llama-7b"} <= {*answers(*words, "llama-7")}
    assert "plain,lmsys/vicuna-7b-delta-v1.1" in answers(*words, "lmsys/vicuna-7b")


def test_topics_of_help_are_completed(answers: Answers) -> None:
    assert answers("help", "shard-tr") == ["plain,shard-truncated"]
    assert answers("help", "how-to/ch") == ["plain,how-to/chains"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_that_its_shell_understands(weightsmith: Weightsmith, shell: str) -> None:
    said = weightsmith("completion", shell)
    assert said.code == 0
    assert "_WEIGHTSMITH_COMPLETE" in said.out
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=said.out, text=True, check=True)

"""How a run ends: texts, exit codes, and what scripts can rely on."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.command_line import Weightsmith
from tests.support.paths import ROOT
from weightsmith.cli.output import render_error
from weightsmith.errors import ShardMissing, ShardTruncated, TargetIsInput

BASE = ("sample", "--base", "./llama")
RUN = (
    "import sys; from weightsmith.cli import main;"
    "main.COMMANDS['sample'] = ('tests.support.sample_command', '');"
    "main.main()"
)


def spawn(
    *args: str, code: str = RUN, stdout: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """A command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        check=False,
    )


def test_an_error_is_a_sentence_its_context_and_a_way_out(weightsmith: Weightsmith) -> None:
    said = weightsmith(*BASE, "--end", "error")
    assert said.code == 3
    assert said.out == ""
    assert said.err.splitlines()[-8:] == [
        "error: x\\x1b[2J.json names 9 missing files [shard-missing]",
        "  shard 1 of 9",
        "  shard 2 of 9",
        "  shard 3 of 9",
        "  shard 4 of 9",
        "  shard 5 of 9",
        "  and 4 more (-v lists all)",
        "hint: download them; the first download was not complete",
    ]


def test_verbose_lists_all_of_the_context(weightsmith: Weightsmith) -> None:
    said = weightsmith(*BASE, "-v", "--end", "error")
    assert said.err.splitlines()[-2] == "  shard 9 of 9"
    assert "more (-v" not in said.err


def test_an_error_in_colour() -> None:
    error = ShardTruncated(file="a.bin", reason="it ends at byte 7")
    assert render_error(error) == (
        "\x1b[1;31merror:\x1b[0m a.bin is cut short: it ends at byte 7"
        " \x1b[2m[shard-truncated]\x1b[0m\n"
        "\x1b[36mhint:\x1b[0m download it again; this is what an interrupted download leaves"
    )


def test_an_error_without_a_hint_ends_with_its_context() -> None:
    error = TargetIsInput(target="a", source="a", hint="", context=["both are /x/a"])
    assert render_error(error).splitlines()[1:] == ["  both are /x/a"]


def test_a_failed_run_in_json_mode_ends_with_one_object_on_stderr(
    weightsmith: Weightsmith,
) -> None:
    said = weightsmith(*BASE, "--json", "--end", "error")
    assert said.out == ""
    assert json.loads(said.err) == {
        "schema": "weightsmith.error/1",
        "code": 3,
        "reference": "shard-missing",
        "message": "x\\x1b[2J.json names 9 missing files",
        "context": [f"shard {i} of 9" for i in range(1, 10)],
        "hint": ShardMissing.hint,
        "warnings": ["the pad token is blank"],
    }


def test_a_mistyped_option_in_json_mode_is_json_too(weightsmith: Weightsmith) -> None:
    said = weightsmith("sample", "--bsae", "x", "--json")
    assert json.loads(said.err)["reference"] == "command-line-invalid"


def test_debug_shows_where_a_known_error_arose(
    weightsmith: Weightsmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Traceback" not in weightsmith(*BASE, "--end", "error").err
    monkeypatch.setenv("WEIGHTSMITH_DEBUG", "1")
    said = weightsmith(*BASE, "--end", "error")
    assert "Traceback" in said.err
    assert "raise ShardMissing" in said.err


def test_a_defect_shows_its_traceback_and_asks_for_a_report(weightsmith: Weightsmith) -> None:
    said = weightsmith(*BASE, "--end", "defect")
    assert said.code == 70
    assert "Traceback" in said.err
    error, hint = said.err.splitlines()[-2:]
    assert error.startswith("error: KeyError: './llama' (weightsmith ")
    assert error.endswith(" [internal-error]")
    assert (
        hint == "hint: this is a defect in weightsmith; please report it with all the lines above"
    )


def test_memory_that_ran_out_is_no_defect(weightsmith: Weightsmith) -> None:
    said = weightsmith(*BASE, "--end", "memory")
    assert said.code == 8
    assert said.err.splitlines()[-3:] == [
        "error: memory ran out: an allocation failed [memory-ran-out]",
        "  2 finished shards are kept",
        "hint: close other programs, or use less memory: --workers 1",
    ]


def test_an_interrupt_says_what_is_kept_and_how_to_go_on(weightsmith: Weightsmith) -> None:
    said = weightsmith("sample", "--base", "./my llama", "--end", "interrupt")
    assert said.code == 130
    assert said.err.splitlines()[-3:] == [
        "error: interrupted [interrupted]",
        "  2 finished shards are kept",
        "hint: to go on: weightsmith sample --base './my llama' --end interrupt",
    ]


def test_a_termination_signal_is_an_interrupt() -> None:
    done = spawn(*BASE, "--end", "signal")
    assert done.returncode == 130
    assert "  2 finished shards are kept\n" in done.stderr


def test_a_check_that_says_no_exits_1(weightsmith: Weightsmith) -> None:
    assert weightsmith(*BASE, "--end", "no").code == 1


def test_a_reader_that_has_gone_ends_the_run_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = spawn("help", "exit-codes", stdout=writer)
    finally:
        os.close(writer)
    assert done.returncode == 141
    assert done.stderr == ""


def test_output_is_complete_when_the_process_ends_at_once() -> None:
    """With torch loaded the process leaves by `os._exit`, which flushes nothing."""
    done = spawn(*BASE, code=f"import sys; sys.modules['torch'] = sys; {RUN}")
    assert done.stdout == "done  ./out\n"
    assert done.stderr.endswith("hint: weightsmith inspect ./out\n")


@pytest.mark.parametrize("count,said", [(1, "names 1 missing file"), (2, "names 2 missing files")])
def test_a_message_counts_as_people_do(count: int, said: str) -> None:
    assert str(ShardMissing(index="x", count=count)) == f"x {said}"

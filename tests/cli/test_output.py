"""The three modes, colours, encodings, questions and progress of the one sink."""

import json

import pytest

from tests.support.command_line import Weightsmith
from weightsmith.cli.live import Lines
from weightsmith.errors import ShardMissing

BASE = ("sample", "--base", "./llama")

MESSAGES = """\
sample
  base   ./llama
  shard  5000000000
warning: the pad token is blank
writing: 1.50 GB
shard 1 of 1 is done
"""


def test_human_mode_prints_the_result_on_stdout_and_the_rest_on_stderr(
    weightsmith: Weightsmith,
) -> None:
    said = weightsmith(*BASE)
    assert said.out == "done  ./out\n"
    assert said.err == MESSAGES + "hint: weightsmith inspect ./out\n"
    assert said.code == 0


def test_json_mode_prints_one_document_with_the_warnings_and_nothing_else(
    weightsmith: Weightsmith,
) -> None:
    said = weightsmith(*BASE, "--json")
    assert json.loads(said.out) == {
        "schema": "weightsmith.sample/1",
        "target": "./out",
        "warnings": ["the pad token is blank"],
    }
    assert said.err == ""


def test_quiet_mode_prints_the_result_s_path_and_warnings(weightsmith: Weightsmith) -> None:
    said = weightsmith(*BASE, "-q")
    assert said.out == "./out\n"
    assert said.err == "warning: the pad token is blank\n"


@pytest.mark.parametrize("also", [(), ("--json",), ("--end", "error")])
def test_twice_quiet_says_nothing_at_all(weightsmith: Weightsmith, also: tuple[str, ...]) -> None:
    said = weightsmith(*BASE, "-qq", *also)
    assert (said.out, said.err) == ("", "")
    assert said.code == (ShardMissing.exit_code if "error" in also else 0)


def test_verbose_adds_detail(weightsmith: Weightsmith) -> None:
    assert "workers: 1, low memory: False, dry run: False\n" in weightsmith(*BASE, "-v").err


def test_modes_can_be_set_by_environment(
    weightsmith: Weightsmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIGHTSMITH_SAMPLE_JSON", "1")
    monkeypatch.setenv("WEIGHTSMITH_SAMPLE_BASE", "./llama")
    assert json.loads(weightsmith("sample").out)["target"] == "./out"


COLORED = "\x1b[32mdone\x1b[0m  ./out\n"


@pytest.mark.parametrize(
    "environment,option,terminal,colored",
    [
        ({}, "auto", True, True),
        ({}, "auto", False, False),
        ({}, "never", True, False),
        ({}, "always", False, True),
        ({"NO_COLOR": ""}, "auto", True, True),
        ({"NO_COLOR": "1"}, "always", True, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, "auto", True, False),
        ({"FORCE_COLOR": "1"}, "auto", False, True),
        ({"FORCE_COLOR": "1"}, "never", True, False),
        ({"TERM": "dumb"}, "auto", True, False),
        ({"TERM": "dumb"}, "always", True, True),
    ],
)
def test_who_decides_on_colours(
    weightsmith: Weightsmith,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    option: str,
    terminal: bool,
    colored: bool,
) -> None:
    monkeypatch.delenv("NO_COLOR")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    said = weightsmith(*BASE, "--color", option, terminal=terminal)
    assert said.out == (COLORED if colored else "done  ./out\n")


@pytest.mark.parametrize("option,colored", [("always", True), ("never", False)])
def test_help_follows_the_colour_option(
    weightsmith: Weightsmith, monkeypatch: pytest.MonkeyPatch, option: str, colored: bool
) -> None:
    monkeypatch.delenv("NO_COLOR")
    out = weightsmith("sample", "--color", option, "-h").out
    assert ("\x1b[1mUsage:\x1b[0m" in out) is colored


def test_a_stream_that_cannot_encode_a_name_shows_it_escaped(weightsmith: Weightsmith) -> None:
    said = weightsmith("sample", "--base", "模型 → x", encoding="ascii")
    assert "  base   \\u6a21\\u578b -> x\n" in said.err


def test_control_characters_in_names_do_not_reach_the_terminal(weightsmith: Weightsmith) -> None:
    said = weightsmith("sample", "--base", "a\x1b[2Jb\nc\x1b[31m", terminal=True)
    assert "  base   a\\x1b[2Jb\\nc\\x1b[31m\n" in said.err


def test_a_question_needs_a_terminal(weightsmith: Weightsmith) -> None:
    said = weightsmith(*BASE, "--end", "ask")
    assert said.code == 2
    assert said.err.endswith(
        "error: there is no terminal to ask on: remove 3 files (1.20 GB)? [confirmation-needed]\n"
        "hint: if that is what you want, say so: --yes\n"
    )


def test_yes_answers_the_question(weightsmith: Weightsmith) -> None:
    assert weightsmith(*BASE, "--end", "ask", "-y").code == 0


@pytest.mark.parametrize("answer,code", [("y\n", 0), ("YES\n", 0), ("n\n", 1), ("\n", 1), ("", 1)])
def test_only_a_yes_is_a_yes(
    weightsmith: Weightsmith, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    class Keyboard:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return answer

    monkeypatch.setattr("sys.stdin", Keyboard())
    said = weightsmith(*BASE, "--end", "ask", terminal=True)
    assert said.code == code
    assert said.err.endswith("remove 3 files (1.20 GB)? [y/N] ")


def test_the_bar_is_gone_and_notes_stay_when_the_run_ends(weightsmith: Weightsmith) -> None:
    said = weightsmith(*BASE, terminal=True)
    *_, note, end = said.err.split("\r")
    assert "  writing        0 %  " in said.err
    assert "  0.00 of 1.50 GB  " in said.err
    assert "shard 1 of 1 is done\n" in said.err
    assert end == "\x1b[Khint: weightsmith inspect ./out\n"
    assert note.strip() == ""


def test_the_bar_is_drawn_in_ascii_where_the_terminal_knows_no_more(
    weightsmith: Weightsmith,
) -> None:
    said = weightsmith(*BASE, encoding="ascii", terminal=True)
    assert "##########" in said.err


def test_bytes_of_no_phase_make_no_line() -> None:
    """As where inputs are read again before anything has begun: there is no share to tell."""
    said: list[str] = []
    lines = Lines(said.append, clock=lambda: 1000.0)
    lines.advance(5)
    lines.begin("checking", 0)
    lines.advance(5)
    assert said == ["checking: 0 B"]


def test_a_log_gets_a_line_every_thirty_seconds() -> None:
    ticks = iter([100.0, 110.0, 129.9, 130.0, 131.0, 159.9, 160.0])
    lines: list[str] = []
    progress = Lines(lines.append, clock=lambda: next(ticks))
    progress.begin("writing", 4_000_000_000)
    for _ in range(6):
        progress.advance(500_000_000)
    assert lines == [
        "writing: 4.00 GB",
        "writing: 1.50 GB of 4.00 GB, 37 %, 50.0 MB/s, 50 s left",
        "writing: 3.00 GB of 4.00 GB, 75 %, 66.4 MB/s, 15 s left",
    ]


def test_a_log_says_too_that_nothing_has_come_yet() -> None:
    ticks = iter([0.0, 30.0, 60.0])
    lines: list[str] = []
    progress = Lines(lines.append, clock=lambda: next(ticks))
    progress.begin("downloading", 4_000_000_000)
    progress.advance(0)
    progress.advance(2_000_000_000)
    assert lines[1:] == [
        "downloading: 0 B of 4.00 GB",
        "downloading: 2.00 GB of 4.00 GB, 50 %, 66.7 MB/s, 30 s left",
    ]

"""Every bad input gets the answer of docs/reference/bad-input.md, and nothing is harmed by it."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import pytest

from tests.support.bad_input.answers import Answer, State, answer
from tests.support.bad_input.case import ARGS, Case, write_pair
from tests.support.bad_input.cases import CASES
from tests.support.bad_input.page import PAGE, render
from tests.support.paths import ROOT
from weightsmith.cli.main import COMMANDS, group
from weightsmith.errors import shown

AnswerOf = Callable[[Case], Answer]
STAGING = ".target.weightsmith-partial"
WAYS_OUT = re.compile(
    r"\b(choose|check|copy|did you mean|do not|download|free|get|git lfs pull|give|join|keep|leave"
    r"|let|mend|put|save|say|see|take|try|torch\.save|write)\b"
)
"""What a hint asks for, if it names neither an option nor a command."""
SAMPLED = pytest.mark.sampled(48)
"""The same cases for each test: one that nobody looks at is not run."""


@pytest.fixture(scope="session")
def answer_of() -> AnswerOf:
    """Runs each case once, for all the tests that look at it."""
    answers: dict[str, Answer] = {}

    def remember(case: Case) -> Answer:
        if case.id not in answers:
            answers[case.id] = answer(case)
        return answers[case.id]

    return remember


@pytest.fixture(params=CASES, ids=[case.id for case in CASES])
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@SAMPLED
def test_the_exit_code_and_the_reference_are_those_of_the_fault(
    case: Case, answer_of: AnswerOf
) -> None:
    given = answer_of(case)
    assert f"[{case.reference}]" in given.last_words.splitlines()[0]
    assert given.human.code == given.json.code == case.exit_code


@SAMPLED
def test_only_the_error_is_said_and_only_on_stderr(case: Case, answer_of: AnswerOf) -> None:
    given = answer_of(case)
    assert given.human.out == given.json.out == ""
    assert given.last_words.startswith("error: ")
    assert "Traceback" not in given.human.err + given.json.err
    assert given.human.err.replace("\n", "").isprintable()


@SAMPLED
def test_the_hint_is_a_way_out(case: Case, answer_of: AnswerOf) -> None:
    _, _, hint = answer_of(case).last_words.rpartition("\nhint: ")
    options = set(re.findall(r"--[a-z][a-z-]*", hint))
    assert options <= _options(), hint
    assert set(re.findall(r"weightsmith ([a-z-]+)", hint)) <= set(COMMANDS), hint
    assert options or "weightsmith " in hint or WAYS_OUT.search(hint), hint


def _options() -> set[str]:
    """Every option of every command."""
    context = click.Context(group)
    commands = [group.get_command(context, name) for name in COMMANDS]
    return {name for each in commands if each for param in each.params for name in param.opts}


@SAMPLED
def test_the_error_is_one_json_document_with_the_same_words(
    case: Case, answer_of: AnswerOf
) -> None:
    given = answer_of(case)
    (line,) = given.json.err.splitlines()
    document = json.loads(line)
    assert document["schema"] == "weightsmith.error/1"
    assert (document["code"], document["reference"]) == (case.exit_code, case.reference)
    first, *context, hint = given.last_words.splitlines()
    assert first == f"error: {document['message']} [{case.reference}]"
    assert [line.strip() for line in context] == shown(document["context"])
    assert hint == f"hint: {document['hint']}"


@SAMPLED
def test_nothing_is_changed_and_nothing_is_published(case: Case, answer_of: AnswerOf) -> None:
    given = answer_of(case)
    assert given.before
    assert _what_must_stay(case, given.after) == _what_must_stay(case, given.before)


def _what_must_stay(case: Case, state: State) -> State:
    """All but the lock, in which each run writes that it was there, and staging that may grow."""
    changes = STAGING if case.shows_late else f"{STAGING}/lock"
    return {path: each for path, each in state.items() if not path.startswith(changes)}


@pytest.mark.slow
def test_the_page_shows_what_is_printed_today(answer_of: AnswerOf) -> None:
    assert PAGE.read_text(encoding="utf-8") == render(answer_of), (
        "docs/reference/bad-input.md is stale: python -m tests.support.bad_input.page"
    )


def test_the_readme_counts_them() -> None:
    assert (
        f"[{len(CASES)} kinds of them](docs/reference/bad-input.md)"
        in (ROOT / "README.md").read_text()
    )


@pytest.mark.sampled(3)
@pytest.mark.parametrize("how", [{}, {"suffix": "bin"}, {"shards": 3}], ids=str)
@pytest.mark.parametrize("unprivileged", [False, True])
def test_the_pair_that_every_case_damages_is_sound(unprivileged: bool, how: dict[str, Any]) -> None:
    def build(folder: Path) -> Sequence[str]:
        write_pair(folder, **how)
        return ARGS

    given = answer(Case("sound", "A sound pair", build, 0, "", unprivileged=unprivileged))
    assert (given.human.code, given.json.code) == (0, 0)
    assert "target/weightsmith.json" in given.after


def test_no_case_is_told_twice() -> None:
    for field in ("id", "what"):
        values = [getattr(case, field) for case in CASES]
        assert len(values) == len(set(values))

"""Every output of a framework gives the framework's own gathering, bit for bit, or is refused."""

from collections.abc import Callable

import pytest

from tests.support.training_cases import CASES, Case, Outcome, outcome_of
from tests.support.training_page import PAGE, render


@pytest.fixture(scope="module")
def outcome() -> Callable[[Case], Outcome]:
    """Runs each case once."""
    known: dict[int, Outcome] = {}

    def remember(case: Case) -> Outcome:
        if id(case) not in known:
            known[id(case)] = outcome_of(case)
        return known[id(case)]

    return remember


@pytest.mark.parametrize("case", CASES, ids=[f"{case.id}-{case.what}" for case in CASES])
def test_it_has_the_bits_of_the_frameworks_own_gathering_or_is_refused(
    case: Case, outcome: Callable[[Case], Outcome]
) -> None:
    found = outcome(case)
    assert (found.error.reference if found.error else "") == case.reference
    assert not found.wrong
    assert found.published is not bool(case.reference)


def test_the_page_shows_what_becomes_of_each_case(outcome: Callable[[Case], Outcome]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert render(page, outcome) == page, "make docs"

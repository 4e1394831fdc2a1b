"""Real tokenizers, as published and under the settings that travel badly; and the page that shows
what every reader makes of them.
"""

import pytest

from tests.support.real_skew import GOOD, REAL
from tests.support.skew_page import PAGE, render
from weightsmith.repair.detect import diagnose, mend

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]


def test_the_page_says_what_every_reader_makes_of_every_folder() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert render(page) == page


@pytest.mark.parametrize("name", GOOD)
def test_what_is_published_is_left_alone(name: str) -> None:
    found = diagnose(REAL[name]())
    assert (found.faults, mend(found).changed) == ((), {})


def test_a_cased_normalizer_is_told() -> None:
    (fault,) = diagnose(REAL["MiniLM, cased"]()).faults
    assert fault.id == "bert-case"

"""A few cases of each part of the torture, so that it does not rot; `make torture` has them all."""

import pytest

from tests.torture.__main__ import PARTS, Report, torture
from tests.torture.commands import COMMANDS

SEED = 1


@pytest.mark.slow
def test_nothing_is_lost_in_a_few_cases_of_every_command_and_part() -> None:
    report = Report(SEED)
    torture(report, at_most=1, workers=1)
    assert report.lost == []
    assert len(report.tried) == len(COMMANDS) * len(PARTS)

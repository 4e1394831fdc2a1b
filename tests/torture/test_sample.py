"""A few cases of each part of the torture, so that it does not rot; `make torture` has them all."""

from pathlib import Path

import pytest

from tests.torture import power, shim
from tests.torture.__main__ import PARTS, Report, torture
from tests.torture.bench import Bench
from tests.torture.commands import COMMANDS
from tests.torture.world import World

SEED = 1


@pytest.mark.slow
def test_nothing_is_lost_in_a_few_cases_of_every_command_and_part() -> None:
    report = Report(SEED)
    torture(report, at_most=1, workers=1)
    assert report.lost == []
    parts = 1 if report.notes else len(PARTS)
    assert len(report.tried) == len(COMMANDS) * parts


@pytest.mark.slow
@pytest.mark.skipif(bool(shim.why_not()), reason=shim.why_not())
def test_a_power_cut_after_syncs_that_lied_is_noticed(tmp_path: Path) -> None:
    """The judge is no rubber stamp: what no program can survive, it tells."""
    bench = Bench(tmp_path / "home", shim.build(tmp_path))
    try:
        world = World(bench, next(each for each in COMMANDS if each.name == "apply"))
        lies = {"function": "fsync", "kind": "lie", "first": 1, "times": shim.FOREVER}
        steps = len(power.recorded(world, trouble=lies).steps)
        assert any("is a mix" in wrong for wrong in power.run(world, f"{steps}:names"))
    finally:
        bench.close()

"""A few cases of each part of the torture, so that it does not rot; `make torture` has them all."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.torture import power, shim
from tests.torture.__main__ import PARTS
from tests.torture.bench import Bench
from tests.torture.commands import COMMANDS
from tests.torture.world import World


@pytest.mark.slow
def test_nothing_is_lost_in_a_few_cases_of_every_command_and_part() -> None:
    """In a process of its own, which may mount."""
    line = [sys.executable, "-m", "tests.torture", "--at-most", "1", "--seed", "1"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"^(\d+) tried, 0 lost", done.stdout, re.MULTILINE)
    assert found
    parts = 2 if shim.why_not() else 0
    assert int(found[1]) == len(COMMANDS) * (len(PARTS) - parts)


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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")
def test_two_runs_take_turns_as_the_schedule_says_each_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "home", None)
    try:
        world = World(bench, next(each for each in COMMANDS if each.name == "apply"))
        orders = []
        for schedule in ([1], [9], [9], [3, 5, 8, 11]):
            world.lay_out()
            ended = world.run(twin="none", schedule=schedule)
            assert {ended.exit, ended.twin} <= {0, 9, 10}
            orders.append(ended.order)
        # The first one makes point after point until its turn is over.
        assert [len(order) - len(order.lstrip("0")) for order in orders] == [1, 9, 9, 3]
        assert orders[1] == orders[2]
        assert orders[3].startswith("00011000111")
    finally:
        bench.close()

"""Processor seconds of each test, its processes included, and a list of those that take long.

Unlike the time on the clock, they depend little on what else the machine does.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

LIMIT_S: Final = 0.5
"""What a test of the fast suite may take; see docs/CONTRIBUTING.md."""
_PROPERTY: Final = "processor seconds"
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 1


class CpuReport:
    """A plugin of pytest, in its workers and in the process that reports."""

    def __init__(self) -> None:
        self._before = 0.0
        self._took: dict[str, float] = {}

    def pytest_collection_finish(self) -> None:
        """Count from here on."""
        self._before = used_s()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Iterator[None]:
        """Note what a test took, at its end."""
        if call.when == "teardown":
            now = used_s()
            item.user_properties.append((_PROPERTY, now - self._before))
            self._before = now
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Hear of it, in the process that reports."""
        if report.when == "teardown":
            self._took[report.nodeid] = float(str(dict(report.user_properties)[_PROPERTY]))

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, config: pytest.Config
    ) -> None:
        """Name the tests over the limit, where the slow ones were left out."""
        if not self._took or "not slow" not in config.option.markexpr:
            return
        terminalreporter.section(f"processor time: {sum(self._took.values()):.0f} s in tests")
        for took, name in sorted(((t, n) for n, t in self._took.items()), reverse=True):
            if took > LIMIT_S:
                terminalreporter.write_line(f"{took:5.2f} s  {name}")
        terminalreporter.write_line(
            f"Listed is what took over {LIMIT_S} s; whoever first imports torch, transformers or "
            "peft, or starts a server that others use too, pays for all."
        )


def used_s() -> float:
    """Seconds that this process and all that it started have used so far."""
    mine = os.times()
    return sum(mine[:4]) + sum(_ticks(pid) for pid in _descendants(os.getpid())) * _TICK_S


def _descendants(pid: int) -> Iterator[int]:
    """Live processes that the main threads of `pid` and of its children have started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # another system, or it has just ended
        return
    for each in map(int, children):
        yield each
        yield from _descendants(each)


def _ticks(pid: int) -> int:
    """Of a live process and of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(map(int, fields[11:15]))

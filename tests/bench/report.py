"""The benchmark's results: one table for people, one JSON document for programs."""

import dataclasses
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench.contest import Contest, Spread

COLUMNS: Final = (
    ("wall s", "wall_s", 1.0, 2),
    ("CPU s", "cpu_s", 1.0, 2),
    ("peak MiB", "peak_bytes", 1 << 20, 0),
)
"""Heading, quantity, unit and decimals of what varies."""
MOVED: Final = (("read GB", "read_bytes"), ("written GB", "written_bytes"))
"""Heading and quantity of what does not, so that its median says it all."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound that a figure should keep."""

    what: str
    found: float
    limit: float
    is_floor: bool = False
    """Whether the figure should be at least that, and not at most."""

    @property
    def met(self) -> bool:
        """Whether the figure keeps the bound."""
        return self.found >= self.limit if self.is_floor else self.found <= self.limit


def table(contests: Sequence[Contest]) -> str:
    """Each contest's figures as ``median (lowest-highest)``."""
    headings = "".join(f"{name:>21}" for name, *_ in COLUMNS)
    lines = [" " * 28 + headings + "".join(f"{name:>12}" for name, _ in MOVED)]
    for contest in contests:
        lines += ["", f"{contest.title} (rounds: {len(contest.rounds)})"]
        for side, name in enumerate(contest.names):
            varied = [
                _cell(contest.spread(side, quantity), unit, places)
                for _, quantity, unit, places in COLUMNS
            ]
            moved = [contest.spread(side, quantity).median / 1e9 for _, quantity in MOVED]
            lines.append(_row(name, varied) + "".join(f"{amount:12.2f}" for amount in moved))
        if len(contest.names) > 1:
            ratios = [_cell(contest.ratio(quantity), 1.0, 2) for _, quantity, *_ in COLUMNS]
            lines.append(_row("ours / theirs", ratios))
    return "\n".join(lines)


def verdicts(goals: Sequence[Goal]) -> str:
    """Which goals are met."""
    width = max((len(goal.what) for goal in goals), default=0)
    return "\n".join(
        f"  {'met' if goal.met else 'MISSED':8}{goal.what:{width}}{goal.found:10.3g}"
        f"  {'at least' if goal.is_floor else 'at most'} {goal.limit:.4g}"
        for goal in goals
    )


def document(
    machine: str,
    contests: Sequence[Contest],
    goals: Sequence[Goal],
    figures: Mapping[str, Any],
) -> dict[str, Any]:
    """All measurements and goals, for ``--json``."""
    return {
        "schema": "weightsmith-bench/1",
        "machine": machine,
        "contests": [dataclasses.asdict(contest) for contest in contests],
        **figures,
        "goals": [{**dataclasses.asdict(goal), "met": goal.met} for goal in goals],
    }


def machine(work: Path) -> str:
    """Cores, processor, memory, file system, system and Python, in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return ", ".join(
        [
            f"{os.cpu_count()} cores of {_processor()}",
            f"{memory:.0f} GiB memory",
            f"{file_system(work)} file system",
            f"{platform.system()} {platform.release()}",
            f"Python {platform.python_version()}",
        ]
    )


def file_system(folder: Path) -> str:
    """Type of the file system that holds `folder`, as the system names it."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:  # not Linux
        return "unknown"
    holding = [(point, kind) for point, kind in mounts if folder.is_relative_to(point)]
    return max(holding, key=lambda mount: len(mount[0]), default=("", "unknown"))[1]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    named = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _row(name: str, cells: Sequence[str]) -> str:
    return f"  {name:26}" + "".join(f"{cell:>21}" for cell in cells)


def _cell(found: Spread, unit: float, places: int) -> str:
    median, low, high = (f"{value / unit:.{places}f}" for value in dataclasses.astuple(found))
    return f"{median} ({low}-{high})"

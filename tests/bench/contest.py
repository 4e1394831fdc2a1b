"""Two commands in turn, A B A B, so that a slow minute of the machine falls on both."""

import math
import os
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measure import Command, Measurement, run


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, lowest and highest of some runs."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Contest:
    """What some rounds of one or two commands took, in the order of the rounds."""

    title: str
    names: tuple[str, ...]
    """Ours, then the rival, if there is one."""
    rounds: Sequence[tuple[Measurement, ...]]
    """One measurement per name, a round each."""

    def values(self, side: int, quantity: str) -> list[float]:
        """Of one side (0 is ours), round by round; empty where the system does not say."""
        found = [getattr(done[side], quantity) for done in self.rounds]
        return [] if None in found else found

    def spread(self, side: int, quantity: str) -> Spread:
        """Of one side, over the rounds."""
        return spread(self.values(side, quantity))

    def ratio(self, quantity: str) -> Spread:
        """Ours over the rival's, round by round."""
        pairs = zip(self.values(0, quantity), self.values(1, quantity), strict=True)
        return spread([our / their for our, their in pairs])


def spread(values: Sequence[float]) -> Spread:
    """Median and extremes; not-a-number of no values."""
    if not values:
        return Spread(math.nan, math.nan, math.nan)
    return Spread(statistics.median(values), min(values), max(values))


def hold(
    title: str,
    commands: Sequence[Command],
    rounds: int,
    log: Path,
    *,
    tell: Callable[[str], None],
    check: Callable[[], None] | None = None,
) -> Contest:
    """Run the commands in turn: one round to warm up, then `rounds` that count.

    Before each run all that the commands make is removed and the disk is synced. After the very
    first run `check` may look at what it made.

    Raises: CommandFailed.
    """
    taken: list[tuple[Measurement, ...]] = []
    for number in range(rounds + 1):
        done = []
        for command in commands:
            clear(commands)
            os.sync()
            done.append(run(command, log))
            if check and not number and command is commands[0]:
                check()
        if number:
            taken.append(tuple(done))
        walls = "  ".join(f"{measurement.wall_s:6.2f} s" for measurement in done)
        tell(f"{title}: {f'round {number} of {rounds}' if number else 'warm-up'}  {walls}")
    clear(commands)
    return Contest(title, tuple(command.name for command in commands), taken)


def clear(commands: Sequence[Command]) -> None:
    """Remove what the commands left behind; it also frees their part of the page cache."""
    for command in commands:
        for made in command.makes:
            shutil.rmtree(made, ignore_errors=True)

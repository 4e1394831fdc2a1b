"""The bar of a long run on a terminal: columns that stand still, and a steady time left."""

import io
import random
import re
from collections.abc import Callable
from contextlib import redirect_stderr
from itertools import pairwise

import pytest

from weightsmith.cli.live import Bar

TOTAL = 13_500_000_000
FPS = 4


def frames(
    speed: Callable[[float], float],
    phase: str = "writing",
    columns: int = 80,
) -> list[tuple[float, str]]:
    """Second and line of a run of so many bytes a second, four lines a second."""
    now, done = 0.0, 0
    found = []
    terminal = io.StringIO()
    bar = Bar(print, fill="━", colored=False, columns=lambda: columns, clock=lambda: now)
    with redirect_stderr(terminal):
        bar.begin(phase, TOTAL)
    while done < TOTAL:
        now += 1 / FPS
        more = min(round(speed(now) / FPS), TOTAL - done)
        bar.advance(more)
        done += more
        terminal.seek(0)
        terminal.truncate()
        with bar.set_aside():  # draws anew
            pass
        found.append((now, terminal.getvalue().rpartition("\r")[2]))
    with redirect_stderr(terminal):
        bar.close()
    return found


def seconds_left(line: str) -> float | None:
    found = re.search(r"(\d+) (s|min|h) left$", line)
    return float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2]] if found else None


@pytest.mark.parametrize("phase", ["writing and checking", "downloading", "looking through 模型"])
def test_columns_stand_still_and_leave_room_for_a_bar(phase: str) -> None:
    noise = random.Random(1)
    lines = [line for _, line in frames(lambda _: noise.uniform(1e6, 4e8), phase)]
    assert {len(line) for line in lines} == {77}
    columns = {tuple(line.index(word) for word in (" %  ", " of 13.5 GB  ")) for line in lines}
    assert len(columns) == 1
    assert {line.rstrip()[-7:] for line in lines[3 * FPS :]} <= {" s left", "in left"}
    cells = lines[-1].count("━")
    assert cells >= 12
    assert lines[-1].startswith(f"  {phase.partition(' ')[0]:<11}  100 %  {'━' * cells}  13.5 of")


@pytest.mark.parametrize(
    "speed",
    [
        lambda now: 2e8 if now % 5 < 2.5 else 0.0,  # a disk that takes breath
        lambda now: 1e7 if now < 4 else 1e8,  # what is slow to begin
        lambda now: 1e9 if now < 1 else 1e8,  # what was in memory
    ],
    ids=["in bursts", "slow at first", "fast at first"],
)
def test_the_time_left_is_steady(speed: Callable[[float], float]) -> None:
    lines = frames(speed)
    end = lines[-1][0]
    told = [(now, left) for now, line in lines if (left := seconds_left(line)) is not None]
    assert told[0][0] <= 3.0
    late = [(now, left) for now, left in told if 35 <= now <= end - 10]
    for now, left in late:
        assert left == pytest.approx(end - now, rel=0.25, abs=35 if left >= 60 else 3)
    for (_, one), (_, next_one) in pairwise(late):
        assert abs(one - next_one) <= max(0.1 * one, 60 if one >= 100 else 2)


def test_nothing_is_foretold_in_the_first_seconds() -> None:
    lines = [line for now, line in frames(lambda _: 1e8) if now < 3]
    assert lines
    assert not [line for line in lines if "left" in line or "/s" in line]


def test_a_narrow_terminal_keeps_the_bar() -> None:
    last = frames(lambda _: 1e9, columns=45)[-1][1]
    assert len(last) <= 45
    assert last.count("━") >= 7

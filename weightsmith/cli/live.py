"""Progress as a person sees it: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from weightsmith.cli.layout import display_width, shortened
from weightsmith.units import DECIMAL, format_duration, format_size

if TYPE_CHECKING:
    from tqdm import tqdm

LINE_EVERY_S: Final = 30.0
"""A log that grows by a line every half minute can be read; one per span cannot."""
_WINDOW_S: Final = 30.0
"""What the last half minute brought tells the time left: a shorter one jumps with every pause of a
disk, a longer one is late to tell that a run got slower.
"""
_FIRST_S: Final = 3.0
"""Before that, nothing is foretold."""
_LONG_NAME: Final = 21
_SHORT_NAME: Final = 11
"""Columns of a phase's name: ``encoding and checking``, or its first word, ``downloading``."""


class Pace:
    """How far a phase is, and how fast it went of late."""

    def __init__(self, total_nbytes: int, now: float) -> None:
        """Begin at `now`, in seconds."""
        self.total = total_nbytes
        self.done = 0
        self._marks = deque([(now, 0)])
        """When how much was done: the first mark is where the window begins, the others follow in
        steps of a second or more.
        """

    def add(self, nbytes: int, now: float) -> None:
        """Count; a file that has to be begun anew takes bytes away."""
        self.done += nbytes
        if now - self._marks[-1][0] >= 1:
            self._marks.append((now, self.done))
            while now - self._marks[1][0] >= _WINDOW_S:
                self._marks.popleft()

    def per_second(self, now: float) -> float:
        """Bytes; 0 while it is too early to tell, or nothing has come for long."""
        since, before = self._marks[0]
        return max(self.done - before, 0) / (now - since) if now - since >= _FIRST_S else 0


class Bar:
    """A tqdm bar in bytes, with speed and time left in columns that stand still; messages appear
    above it.
    """

    def __init__(
        self,
        write_line: Callable[[str], None],
        *,
        fill: str,
        colored: bool,
        columns: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Draw nothing yet; `write_line` is where notes go, and calls `set_aside`.

        `columns` tells the terminal's, which may change; `clock` counts seconds.
        """
        self._write_line = write_line
        self._fill = fill
        self._colored = colored
        self._columns = columns
        self._clock = clock
        # tqdm's own lock guards drawing, not counting; and no note may fall between clear and draw.
        self._lock = threading.RLock()
        self._bar: tqdm[Any] | None = None
        self._pace = Pace(0, 0)

    def begin(self, phase: str, total_nbytes: int) -> None:
        """Replace the bar of the phase before."""
        with self._lock:
            self.close()
            self._pace = Pace(total_nbytes, self._clock())
            self._bar = self._new_bar(phase, self._pace)

    def advance(self, nbytes: int) -> None:
        """Count; tqdm draws ten times a second at most."""
        with self._lock:
            if self._bar is not None:
                self._pace.add(nbytes, self._clock())
                self._bar.update(nbytes)

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._write_line(text)

    def close(self) -> None:
        """Take the bar off the screen."""
        with self._lock:
            if self._bar is not None:
                self._bar.close()
                self._bar = None
                sys.stderr.write("\r\x1b[K")  # with the "^C" behind it

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Keep the bar off the screen while something is written above it."""
        with self._lock:
            if self._bar is not None:
                self._bar.clear()
            yield
            if self._bar is not None:
                self._bar.refresh()

    def _new_bar(self, phase: str, pace: Pace) -> "tqdm[Any]":
        from tqdm import tqdm

        columns, clock = self._columns, self._clock

        class SizedBar(tqdm):  # type: ignore[type-arg]  # tqdm is generic in its stubs only
            """tqdm with our columns, and without its watcher thread."""

            monitor_interval = 0

            @property
            def format_dict(self) -> Any:
                fields = super().format_dict
                # Room for the "^C" that a terminal echoes: past the edge it would split the bar.
                width = columns() - 3
                fields.update(ncols=width, bar_format=_line(phase, pace, clock(), width))
                return fields

        return SizedBar(
            total=pace.total,
            file=sys.stderr,
            leave=False,
            ascii=f" {self._fill}",
            colour="cyan" if self._colored else None,
        )


def _line(phase: str, pace: Pace, now: float, width: int) -> str:
    """A line of a bar, its cells still to be drawn; every column is as wide as it will ever be.

    On a narrow terminal the speed is left out, then the bytes.
    """
    room = _LONG_NAME if width >= 90 else _SHORT_NAME
    name = shortened(phase if room == _LONG_NAME else phase.partition(" ")[0], room)
    name += " " * (room - display_width(name))
    rate = pace.per_second(now)
    speed = f"{format_size(round(rate))}/s" if rate else ""
    left = f"{_about((pace.total - pace.done) / rate)} left" if rate else ""
    percent = min(100 * pace.done // pace.total, 100) if pace.total else 100
    amount = f"  {_of(pace.done, pace.total)}" if width >= 50 else ""
    amount += f"  {speed:>9}" if width >= 70 else ""
    # tqdm fills in what stands between braces; a phase may name a folder that has some.
    name, amount = (text.replace("{", "{{").replace("}", "}}") for text in (name, amount))
    return f"  {name}  {percent:3} %  {{bar}}{amount}  {left:>11}"


def _of(done: int, total: int) -> str:
    """``" 0.31 of 13.5 GB"``: both in the unit of the whole."""
    whole, unit = format_size(total).split()
    decimals = len(whole.partition(".")[2])
    scale = 1000 ** DECIMAL.index(unit)
    return f"{done / scale:{len(whole)}.{decimals}f} of {whole} {unit}"


def _about(seconds: float) -> str:
    """A time left, in two digits and one unit, for more is not known of it: ``"12 min"``."""
    for unit, name in ((1, "s"), (60, "min")):
        if round(seconds / unit) < 100:
            return f"{round(seconds / unit)} {name}"
    return f"{round(seconds / 3600)} h"


class Lines:
    """One plain line per phase and another every 30 s, for logs."""

    def __init__(
        self, write_line: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Say nothing yet; `clock` counts seconds."""
        self._write_line = write_line
        self._clock = clock
        self._lock = threading.Lock()
        self._phase = ""
        self._pace = Pace(0, 0)
        self._said = 0.0

    def begin(self, phase: str, total_nbytes: int) -> None:
        """Name the phase and its size."""
        with self._lock:
            self._phase, self._said = phase, self._clock()
            self._pace = Pace(total_nbytes, self._said)
        self._write_line(f"{phase}: {format_size(total_nbytes)}")

    def advance(self, nbytes: int) -> None:
        """Count, and say so every 30 s."""
        with self._lock:
            pace, now = self._pace, self._clock()
            pace.add(nbytes, now)
            if now - self._said < LINE_EVERY_S or not pace.total:  # or nothing has begun yet
                return
            self._said = now
            parts = [f"{self._phase}: {format_size(pace.done)} of {format_size(pace.total)}"]
            if pace.done > 0:  # a file may have to be begun anew
                parts.append(f"{100 * pace.done // pace.total} %")
            if speed := pace.per_second(now):  # a server may let us wait
                parts.append(f"{format_size(round(speed))}/s")
                parts.append(f"{format_duration((pace.total - pace.done) / speed)} left")
        self._write_line(", ".join(parts))

    def note(self, text: str) -> None:
        """Print the line."""
        self._write_line(text)

"""Progress as a person sees it: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from weightsmith.units import format_duration, format_size

if TYPE_CHECKING:
    from tqdm import tqdm

LINE_EVERY_S: Final = 30.0
"""A log that grows by a line every half minute can be read; one per span cannot."""


class Bar:
    """A tqdm bar in bytes, with speed and time left; messages appear above it."""

    def __init__(self, write_line: Callable[[str], None], *, fill: str, colored: bool) -> None:
        """Draw nothing yet; `write_line` is where notes go, and calls `set_aside`."""
        self._write_line = write_line
        self._fill = fill
        self._colored = colored
        # tqdm's own lock guards drawing, not counting; and no note may fall between clear and draw.
        self._lock = threading.RLock()
        self._bar: tqdm[Any] | None = None

    def begin(self, phase: str, total_nbytes: int) -> None:
        """Replace the bar of the phase before."""
        with self._lock:
            self.close()
            self._bar = _new_bar(phase, total_nbytes, self._fill, colored=self._colored)

    def advance(self, nbytes: int) -> None:
        """Count; tqdm draws ten times a second at most."""
        with self._lock:
            if self._bar is not None:
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
        self._done = self._total = 0
        self._started = self._said = 0.0

    def begin(self, phase: str, total_nbytes: int) -> None:
        """Name the phase and its size."""
        with self._lock:
            self._phase, self._done, self._total = phase, 0, total_nbytes
            self._started = self._said = self._clock()
        self._write_line(f"{phase}: {format_size(total_nbytes)}")

    def advance(self, nbytes: int) -> None:
        """Count, and say so every 30 s."""
        with self._lock:
            self._done += nbytes
            now = self._clock()
            if now - self._said < LINE_EVERY_S:
                return
            self._said = now
            parts = [f"{self._phase}: {format_size(self._done)} of {format_size(self._total)}"]
            if self._done > 0:  # a server may let us wait, and a file may have to be begun anew
                speed = self._done / (now - self._started)
                parts += [
                    f"{100 * self._done // self._total} %",
                    f"{format_size(round(speed))}/s",
                    f"{format_duration((self._total - self._done) / speed)} left",
                ]
        self._write_line(", ".join(parts))

    def note(self, text: str) -> None:
        """Print the line."""
        self._write_line(text)


def _new_bar(phase: str, total_nbytes: int, fill: str, *, colored: bool) -> "tqdm[Any]":
    from tqdm import tqdm

    class SizedBar(tqdm):  # type: ignore[type-arg]  # tqdm is generic in its stubs only
        """tqdm with our units, and without its watcher thread."""

        monitor_interval = 0

        @property
        def format_dict(self) -> Any:
            fields = super().format_dict
            rate = fields["rate"] or (fields["n"] / fields["elapsed"] if fields["elapsed"] else 0)
            left = (total_nbytes - fields["n"]) / rate if rate else 0
            fields.update(
                # Room for the "^C" that a terminal echoes: past the edge it would split the bar.
                ncols=min(fields["ncols"] or 80, 100) - 3,
                done=f"{format_size(fields['n'])} of {format_size(total_nbytes)}",
                speed=f"{format_size(round(rate))}/s",
                left=f"{format_duration(left)} left" if rate else "",
            )
            return fields

    return SizedBar(
        total=total_nbytes,
        desc=f"{phase:<8}",
        file=sys.stderr,
        leave=False,
        dynamic_ncols=True,
        ascii=f" {fill}",
        colour="cyan" if colored else None,
        bar_format="  {desc}  {percentage:3.0f} %  {bar}  {done}  {speed}  {left}",
    )

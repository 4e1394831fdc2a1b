"""How a long run says how far it is, without knowing who listens."""

import sys
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

if TYPE_CHECKING:
    from tqdm import tqdm


class Progress(Protocol):
    """A listener to a long run; `advance` and `note` may be called from any thread."""

    def begin(self, phase: str, total_nbytes: int) -> None:
        """Start a phase (``"writing"``, ``"checking"``) of so many bytes, ending the one before."""

    def advance(self, nbytes: int) -> None:
        """So many more bytes of the phase are done."""

    def note(self, text: str) -> None:
        """One line that a person watching should see now."""


class Silence:
    """A listener that hears nothing: the default of library calls."""

    def __repr__(self) -> str:
        return "SILENCE"

    def begin(self, phase: str, total_nbytes: int) -> None:
        """Hear nothing."""

    def advance(self, nbytes: int) -> None:
        """Hear nothing."""

    def note(self, text: str) -> None:
        """Hear nothing."""


class TqdmProgress:
    """A ready-made listener: a tqdm bar in bytes for each phase. Use it in a ``with`` statement."""

    def __init__(self) -> None:
        """Draw nothing yet."""
        self._lock = threading.Lock()
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self, phase: str, total_nbytes: int) -> None:
        """Draw a new bar, and end the one before."""
        from tqdm import tqdm

        with self._lock:
            self._close()
            self._bar = tqdm(
                desc=phase, total=total_nbytes, unit="B", unit_scale=True, unit_divisor=1000
            )

    def advance(self, nbytes: int) -> None:
        """Move the bar."""
        with self._lock:
            if self._bar is not None:
                self._bar.update(nbytes)

    def note(self, text: str) -> None:
        """Print a line above the bar, on stderr."""
        from tqdm import tqdm

        with self._lock:
            tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """End the bar."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


SILENCE: Final[Progress] = Silence()

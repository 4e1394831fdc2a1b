"""How a long run says how far it is, without knowing who listens."""

from typing import Final, Protocol


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

    def begin(self, phase: str, total_nbytes: int) -> None:
        """Hear nothing."""

    def advance(self, nbytes: int) -> None:
        """Hear nothing."""

    def note(self, text: str) -> None:
        """Hear nothing."""


SILENCE: Final[Progress] = Silence()

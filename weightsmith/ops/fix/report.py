"""What became of the damaged files of a folder."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["fixed", "can be fixed", "left"]


@dataclass(frozen=True, slots=True)
class FileFix:
    """A damaged file, and what became of it."""

    file: str
    fault: str
    """What is wrong with it, as a clause."""
    outcome: Outcome
    how: str
    """Where the right bytes come from; of one that is left, why."""
    nbytes: int = 0
    """Size of the right file."""
    hint: str = ""
    """Of one that is left, a command that helps."""

    def left(self, why: str, hint: str = "") -> "FileFix":
        """The same file, which could not be fixed after all."""
        return replace(self, outcome="left", how=why, hint=hint)


@dataclass(frozen=True, slots=True)
class FixReport:
    """Every damaged file of a folder, and what became of it."""

    folder: Path
    files: tuple[FileFix, ...]

    @property
    def complete(self) -> bool:
        """Whether no damaged file is left, or would be."""
        return not any(each.outcome == "left" for each in self.files)

    @property
    def hints(self) -> list[str]:
        """Commands that help against what is left, each once."""
        return list(dict.fromkeys(each.hint for each in self.files if each.hint))

    def to_document(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {"folder": str(self.folder), "files": [asdict(each) for each in self.files]}


class CannotFix(Exception):
    """Why a file cannot be fixed, as a clause, and a command that helps."""

    def __init__(self, reason: str, hint: str = "") -> None:
        """`hint` is empty where the command that made the output is the one that helps."""
        super().__init__(reason)
        self.hint = hint

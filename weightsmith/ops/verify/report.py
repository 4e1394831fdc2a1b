"""Answers about a model, each with its reasons."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["pass", "warn", "FAIL", "not checked"]
"""``warn``: the weights are right, but something beside them will trouble some reader."""


@dataclass(frozen=True, slots=True)
class Check:
    """One question and its answer."""

    name: str
    verdict: Verdict
    details: tuple[str, ...]
    """Why, or every problem found."""
    hint: str = ""
    """A command that helps, where there is one."""


@dataclass(frozen=True, slots=True)
class Report:
    """All answers about one source."""

    source: str
    checks: tuple[Check, ...]
    fingerprint: str = ""
    """Of all its tensors; empty where they could not be read."""

    def passed(self, *, strict: bool = False) -> bool:
        """Whether no check failed; if `strict`, none warned or was left out either."""
        bad = {"FAIL", "warn", "not checked"} if strict else {"FAIL"}
        return not any(check.verdict in bad for check in self.checks)

    def to_document(self) -> dict[str, Any]:
        """The report as JSON values."""
        checks = [asdict(check) for check in self.checks]
        return {"source": self.source, "fingerprint": self.fingerprint, "checks": checks}


def judged(
    name: str, problems: Sequence[str], fine: str, *, hint: str = "", verdict: Verdict = "FAIL"
) -> Check:
    """A check that passes with the words `fine` where there are no problems, and else has
    `verdict`.
    """
    if problems:
        return Check(name, verdict, tuple(problems), hint)
    return Check(name, "pass", (fine,))

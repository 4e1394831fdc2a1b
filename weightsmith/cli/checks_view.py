"""Show checks and a smoke test, for a person or as JSON."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from weightsmith.cli.layout import styled, table
from weightsmith.cli.output import Output, command_line
from weightsmith.errors import WeightsmithError
from weightsmith.ops.fix_tokenizer import check_tokenizer
from weightsmith.ops.verify.report import Check, Verdict
from weightsmith.ops.verify.smoke import Settings, Smoke, smoke
from weightsmith.sources.locate import label_of
from weightsmith.units import counted, format_duration, format_memory

STYLES: Final = {"pass": "green", "warn": "yellow", "FAIL": "red", "not checked": "yellow"}
_GAP: Final = "  "


@dataclass(frozen=True, slots=True)
class Smoked:
    """The result of a smoke test."""

    did: Smoke | None
    """None if the model could not be loaded or run."""
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not any(check.verdict == "FAIL" for check in self.checks)

    def to_document(self) -> dict[str, Any]:
        """The same as JSON values; infinity, which JSON lacks, becomes null."""
        did = asdict(self.did) if self.did else {}
        numbers = {k: None for k, v in did.items() if isinstance(v, float) and math.isinf(v)}
        return {
            "smoke": did | numbers or None,
            "checks": [asdict(check) for check in self.checks],
            "passed": self.passed,
        }


def run_smoke(
    output: Output,
    source: str | os.PathLike[str],
    settings: Settings,
    *,
    base: str | os.PathLike[str] | None = None,
) -> Smoked:
    """Run the smoke test, print what the model writes, and return the checks of it."""
    output.line(f"\nloading {label_of(source)} for a smoke test")
    written: list[str] = []

    def hear(text: str) -> None:
        if not written:
            output.line(styled(f"> {settings.prompt}", "dim"))
        written.append(text)
        output.stream(text)

    did, checks = smoke(source, settings, base=base, on_text=hear)
    if did is None:
        return Smoked(did, checks)
    output.line("\n" if "".join(written).strip() else styled("(nothing)", "dim"))
    output.line(f"{styled('on', 'dim')} {_speed(did)}")
    return Smoked(did, checks)


def _speed(did: Smoke) -> str:
    said = f"{did.device}: loaded in {format_duration(did.load_s)}, {did.tokens_per_s:.3g} tokens/s"
    peak = did.peak_memory_nbytes
    return f"{said}, peak memory {format_memory(peak)}" if peak else said


def checks_page(checks: Sequence[Check], output: Output, fingerprint: str = "") -> str:
    """A line for each check, with its first details; with ``-v`` all of them."""
    names = max(len(check.name) for check in checks)
    verdicts = max(len(check.verdict) for check in checks)
    margin = 2 + names + len(_GAP) + verdicts + len(_GAP)
    lines = []
    for check in checks:
        rows = [(output.brief(detail),) for detail in output.shown(check.details)]
        first, *rest = table(rows, width=output.width - margin, styles=(), indent=0).splitlines()
        verdict = styled(check.verdict, STYLES[check.verdict])
        padding = " " * (verdicts - len(check.verdict))
        lines.append(f"  {check.name:<{names}}{_GAP}{verdict}{padding}{_GAP}{first}")
        lines += [" " * margin + line for line in rest]
    if fingerprint:
        lines.append(f"\n  {styled('fingerprint', 'dim')}  {fingerprint}")
    return "\n".join(lines)


def summary(checks: Sequence[Check], *, passed: bool) -> str:
    """The last line of a page: ``FAIL  1 of 12 checks failed``."""
    count = Counter(check.verdict for check in checks)
    failed, warned, left = count["FAIL"], count["warn"], count["not checked"]
    verdict: Verdict = "warn" if warned and passed else "pass" if passed else "FAIL"
    made = len(checks) - left
    said = f"{failed} of {len(checks)} checks failed" if failed else counted(made, "check")
    said += f", {counted(warned, 'warning')}" * bool(warned)
    said += f", {left} could not be made" * bool(left)
    return f"{styled(verdict, STYLES[verdict])}  {said}"


def tokenizer_faults(folder: Path, *options: str) -> tuple[list[str], str]:
    """What is wrong with tokenizer and config files, as sentences, and what helps against it.

    `options` are what ``fix-tokenizer`` wants besides the folder.
    """
    try:
        found = check_tokenizer(folder)
    except WeightsmithError as error:
        return [str(error)], error.hint_text
    faults = [f"{fault.file}: {fault.evidence}" for fault in found.faults]
    cures = [fault.error.hint_text for fault in found.incurable if fault.error]
    if cures or not found.mendable:
        return faults, cures[0] if cures else ""
    return faults, command_line(["weightsmith", "fix-tokenizer", folder, *options])


def hints_of(checks: Sequence[Check]) -> list[str]:
    """What helps against what failed."""
    return [check.hint for check in checks if check.verdict != "pass"]


def show_hints(output: Output, hints: Iterable[str]) -> None:
    """Commands worth running next, each once."""
    for hint in filter(None, dict.fromkeys(hints)):
        output.hint(hint)

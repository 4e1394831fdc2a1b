"""Known faults of a folder as a person sees them, the worst first, and as a document."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from weightsmith.catalogue.repairs import KnownRepair, Severity, load_repairs
from weightsmith.cli.layout import heading, table
from weightsmith.cli.output import Output
from weightsmith.repair.examples import Example
from weightsmith.repair.faults import Fault

_HEADINGS: Final[Mapping[Severity, str]] = {
    "ids": "wrong token ids, without an error",
    "silent": "other wrong results, without an error",
    "loud": "errors and warnings on loading",
}
_REMARKS: Final = "published so by its makers: left as it is"
_IDS: Final = 6
"""How many ids of an example are shown."""


def show_faults(
    output: Output,
    faults: Sequence[Fault],
    remarks: Sequence[Fault],
    examples: Mapping[str, Example],
) -> None:
    """Each fault with its file, what is there, who errs and how, and a text that shows it."""
    known = _known()
    groups = {
        title: [each for each in faults if known[each.id].severity == severity]
        for severity, title in _HEADINGS.items()
    }
    for title, group in ({**groups, _REMARKS: remarks}).items():
        if not group:
            continue
        output.plan(heading(title))
        rows = []
        for fault in group:
            word = f"{fault.verdict}: " if fault.verdict == "report" else ""
            rows.append((fault.id, f"{fault.file}: {word}{fault.evidence}"))
            if fault is next(each for each in group if each.id == fault.id):
                rows += [("", line) for line in _more(known[fault.id], examples.get(fault.id))]
        output.plan(table(rows, width=output.width, styles=("yellow",)))
    for fault_id in dict.fromkeys(fault.id for fault in faults):
        repair = known[fault_id]
        output.detail(f"{fault_id}: {repair.symptom} ({', '.join(repair.references)})")


def fault_document(fault: Fault, examples: Mapping[str, Example]) -> dict[str, Any]:
    """A fault as JSON values."""
    repair, example = _known()[fault.id], examples.get(fault.id)
    return {
        "id": fault.id,
        "verdict": fault.verdict,
        "severity": repair.severity,
        "file": fault.file,
        "evidence": fault.evidence,
        "symptom": repair.symptom,
        "readers": list(repair.readers),
        "example": asdict(example) if example else None,
        "repair": repair.change,
        "references": list(repair.references),
        "curable": fault.verdict == "fault" and fault.error is None,
    }


def _more(repair: KnownRepair, example: Example | None) -> Iterator[str]:
    yield from repair.readers
    if example:
        pairs = zip(example.ids, example.right, strict=False)
        shorter = min(len(example.ids), len(example.right))
        at = next((n for n, (a, b) in enumerate(pairs) if a != b), shorter)
        said, right = (_listed(ids, max(at - 1, 0)) for ids in (example.ids, example.right))
        of = f"{example.wrong} of {example.texts} texts"
        yield f"{example.text!r} gives {said} and should give {right} ({of})"


def _listed(ids: Sequence[int], first: int) -> str:
    """Some ids of a list, from the one before where it differs from another."""
    shown = [*["..."] * (first > 0), *map(str, ids[first : first + _IDS])]
    shown += ["..."] * (len(ids) > first + _IDS)
    return f"[{', '.join(shown)}]"


def _known() -> dict[str, KnownRepair]:
    return {repair.id: repair for repair in load_repairs()}

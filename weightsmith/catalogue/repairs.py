"""Known faults of tokenizer and config files: data in ``repairs/*.toml``, read here."""

import functools
from dataclasses import dataclass
from importlib import resources
from typing import Final, Literal

from weightsmith.catalogue.schema import parse_entries
from weightsmith.errors import CatalogueInvalid

Detector = Literal[
    "misspelt",
    "no-tokenizer-class",
    "blank-tokens",
    "wrong-tokens",
    "special-tokens-map",
    "no-bos-rule",
    "no-legacy-rule",
    "missing-pad-row",
    "wrong-ids",
    "pad-out-of-range",
    "pad-without-row",
    "ids-beyond-rows",
    "no-positions",
    "wrong-vocab-size",
    "idle-sampling",
    "missing-model",
    "damaged-model",
    "missing-json",
    "stale-json",
]
"""What can look for a fault; `weightsmith.repair.detect` holds a function for each."""

Verdict = Literal["fault", "report", "remark"]
"""What a finding is.

A *fault* is mended; a *report* is wrong too, but nothing can safely be written for it; a *remark*
is what a family publishes itself, or what only some reader minds, and is left as it is.
"""

_GENERATED: Final = "Generated from `weightsmith/catalogue/repairs/*.toml`; edit those."


@dataclass(frozen=True, slots=True)
class KnownRepair:
    """A known fix for a known fault."""

    id: str
    """Kebab-case, unique: ``"special-tokens-blank"``."""
    title: str
    """The fault in a few words."""
    symptom: str
    """What users see."""
    detector: Detector
    change: str
    """What the repair changes, or why it cannot."""
    references: tuple[str, ...]
    """Where users met it."""
    file: str = ""
    """For detectors that look at one value: the JSON file it stands in,"""
    key: str = ""
    """its key there,"""
    right: tuple[str, ...] = ()
    """and the right spellings."""
    verdict: Verdict = "fault"


@functools.cache
def load_repairs() -> tuple[KnownRepair, ...]:
    """All known repairs, in the order of their files' names.

    Raises: CatalogueInvalid, if the installed catalogue is damaged.
    """
    folder = resources.files("weightsmith.catalogue") / "repairs"
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda f: f.name
    )
    faults: list[str] = []
    repairs = [
        repair
        for file in files
        for repair in parse_entries(
            KnownRepair, "repair", file.read_text("utf-8"), file.name, faults
        )
    ]
    ids = [repair.id for repair in repairs]
    faults += (f"repair {each} is there twice" for each in {i for i in ids if ids.count(i) > 1})
    if faults:
        raise CatalogueInvalid(count=len(faults), context=faults)
    return tuple(repairs)


def render() -> str:
    """The page ``docs/repairs.md``."""
    lines = [
        "# Known faults and their repairs",
        "",
        f"<!-- {_GENERATED} -->",
        "",
        "`weightsmith fix-tokenizer` looks for these faults in a folder, shows what it",
        "would change, and proves the result before a file is touched.",
        "It never touches `tokenizer.model`, which says what the true ids are.",
        "",
    ]
    for repair in load_repairs():
        lines += [
            f"## {repair.id}",
            "",
            f"{repair.title}.",
            "",
            f"- **Symptom**: {repair.symptom}",
            f"- **Repair**: {repair.change}",
            f"- **Met in**: {', '.join(repair.references)}",
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"

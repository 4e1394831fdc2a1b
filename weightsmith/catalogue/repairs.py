"""Known faults of tokenizer and config files: data in ``repairs/*.toml``, read here."""

import functools
from collections import Counter
from dataclasses import dataclass
from importlib import resources
from typing import Final, Literal

from weightsmith.catalogue.load import load_entries
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
    "stale-json",
    "class-tokenizers-backend",
    "token-type-ids",
    "llama-class-bytelevel",
    "class-overrules-json",
    "class-forced",
    "leading-space-v5",
    "padding-side",
    "v5-save-beside-model",
    "legacy-dropped",
    "model-only-llama",
    "model-only-mistral",
    "bos-rule-lost",
    "prefix-space-forces-slow",
    "extra-tokens-list",
    "extra-tokens-empty",
    "stale-special-map",
    "stale-added-tokens",
    "template-only-in-file",
    "template-twice",
    "cleanup-spaces",
    "eos-lacks-turn-end",
    "auto-map-leftover",
    "bert-case",
    "prefix-space",
    "added-token-ids",
    "json-refused",
    "mistral-regex",
    "vocab-merges-stale",
    "merges-pairs",
    "vocab-files-only",
    "rope-parameters-only",
    "rope-nested",
    "rope-twice",
    "dtype-only",
]
"""Names of the detectors; `weightsmith.repair.detect` holds a function for each."""

Severity = Literal["ids", "silent", "loud"]
"""What a fault leads to: wrong ids without a warning, another wrong result without a warning, or an
error.
"""

Verdict = Literal["fault", "report", "remark"]
"""What a finding is.

A *fault* is mended. A *report* is wrong too, but nothing can safely be written for it. A *remark*
is something that a family publishes this way itself, or that only some readers get wrong; it is
left as it is.
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
    verdict: Verdict = "fault"
    how: str = ""
    """How a folder comes to it."""
    readers: tuple[str, ...] = ()
    """Who misreads the folder, and how: ``"transformers-4: adds BOS to every text"``."""
    severity: Severity = "loud"
    example: str = ""
    """What it looks like in a file, in a line."""
    file: str = ""
    """For detectors that look at one value: the JSON file it stands in,"""
    key: str = ""
    """its key there,"""
    right: tuple[str, ...] = ()
    """and the right spellings."""

    @property
    def misread_by(self) -> frozenset[str]:
        """The readers that misread it, by name; empty if all do, or if it is not known."""
        return frozenset(each.partition(":")[0] for each in self.readers) - {"all"}


@functools.cache
def load_repairs() -> tuple[KnownRepair, ...]:
    """All known repairs, in the order of their files' names.

    Raises: CatalogueInvalid, if the installed catalogue is damaged.
    """
    repairs = load_entries(KnownRepair, "repair", "repairs")
    counts = Counter(repair.id for repair in repairs)
    if faults := [f"repair {each} is there twice" for each, count in counts.items() if count > 1]:
        raise CatalogueInvalid(count=len(faults), context=faults)
    return repairs


def render() -> str:
    """The page ``docs/reference/repairs.md``."""
    folder = resources.files("weightsmith.catalogue") / "repairs"
    introduction = (folder / "introduction.md").read_text("utf-8")
    lines = ["# Known faults and their repairs", "", f"<!-- {_GENERATED} -->", "", introduction]
    repairs = load_repairs()
    lines += ["| fault | verdict | misread by |", "| --- | --- | --- |"]
    for each in repairs:
        who = ", ".join(sorted(each.misread_by)) or "all"
        lines.append(f"| [{each.id}](#{each.id}) | {each.verdict} | {who} |")
    lines.append("")
    for repair in repairs:
        lines += [f"## {repair.id}", "", f"{repair.title}.", ""]
        if repair.how:
            lines.append(f"- **How it comes**: {repair.how}")
        lines.append(f"- **Symptom**: {repair.symptom}")
        lines += (f"- **Misread by**: {reader}" for reader in repair.readers)
        if repair.verdict != "fault":
            lines.append(f"- **Verdict**: {repair.verdict}")
        lines += [f"- **Repair**: {repair.change}", f"- **Met in**: {', '.join(repair.references)}"]
        if repair.example:
            lines.append(f"- **Example**: {repair.example}")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"

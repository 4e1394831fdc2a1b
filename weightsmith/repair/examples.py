"""Find, for each fault, a text that gets wrong ids by it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weightsmith.errors import TokenizerUnproved
from weightsmith.repair.contents import TOKENIZER_JSON
from weightsmith.repair.faults import Fault
from weightsmith.repair.folder import Folder
from weightsmith.repair.proof import Answers, common_probes

Ask = Callable[[Sequence[Mapping[str, Any]], Sequence[str]], list[Answers | str]]
"""``ask(documents, texts)``: for each ``tokenizer.json``, what the tokenizers library makes of the
texts, or its error message.
"""


@dataclass(frozen=True, slots=True)
class Example:
    """A text that a faulty folder gives other ids than it should."""

    text: str
    ids: tuple[int, ...]
    right: tuple[int, ...]
    wrong: int
    """How many of the texts get other ids,"""
    texts: int
    """of so many."""


def examples(faults: Sequence[Fault], folder: Folder, ask: Ask) -> dict[str, Example]:
    """By fault id, the shortest text to which the fault gives wrong ids.

    The misreading programs need not be installed: `Fault.read_as` is a ``tokenizer.json`` that is
    read as they read the folder, and `ask` gives the ids that follow from it.
    """
    told = [fault for fault in faults if fault.read_as is not None]
    if not told:
        return {}
    probes = common_probes(folder)
    own = folder.parsed(TOKENIZER_JSON)
    documents = [doc for each in told for doc in (each.read_as or {}, each.truth or own)]
    try:
        answers = ask(documents, probes)
    except TokenizerUnproved:
        return {}  # it did not end in time: the faults are shown without an example
    shown = {}
    for number, fault in enumerate(told):
        wrong, right = answers[2 * number : 2 * number + 2]
        if isinstance(wrong, str) or isinstance(right, str):
            continue
        rows = zip(probes, wrong.ids, right.ids, strict=True)
        differing = sorted((row for row in rows if row[1] != row[2]), key=lambda row: len(row[2]))
        if differing:
            text, ids, good = differing[0]
            count = len(differing)
            shown[fault.id] = Example(text, tuple(ids), tuple(good), count, len(probes))
    return shown

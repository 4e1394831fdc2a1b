"""Find the names of a classifier's labels: as given, or in the adapter's config or card."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.sidecars import CARD
from weightsmith.errors import LabelsDoNotFit
from weightsmith.plan.adapter_heads import Head

_FRONT_MATTER: Final = re.compile(r"\A---\r?\n(.*?\n)---\r?\n", re.DOTALL)
_BY_NUMBER: Final = re.compile(r"^id2label:[ \t]*\r?\n((?:[ \t]+.*\n)+)", re.MULTILINE)
_LISTED: Final = re.compile(r"^labels:[ \t]*\r?\n((?:[ \t]*-.*\n)+)", re.MULTILINE)
_IN_LINE: Final = re.compile(r"^labels:[ \t]*\[(.*)\][ \t]*$", re.MULTILINE)


def head_settings(
    base: Checkpoint, lora: Checkpoint, head: Head, given: Sequence[str]
) -> tuple[dict[str, object], str]:
    """Settings for the config of a model with this head, and a note on where its labels are from.

    The labels are those `given`, else those of the adapter's config or card, else ``LABEL_0`` and
    so on.
    Raises: LabelsDoNotFit, if there is not one different label for each row of the head.
    """
    names, why = list(given), "as given"
    if not names:
        names, why = _recorded(lora, head.labels)
    if len(names) != head.labels or len(set(names)) != len(names):
        raise LabelsDoNotFit(
            given=", ".join(names), tensor=head.tensor, count=head.labels, adapter=lora.label
        )
    settings: dict[str, object] = {
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
    }
    if architecture := head.architecture(base.config.get("architectures")):
        settings["architectures"] = [architecture]
    return settings, f"the labels are {', '.join(names)} ({why})"


def _recorded(lora: Checkpoint, count: int) -> tuple[list[str], str]:
    """The names that the adapter's config or card gives to `count` labels, else ``LABEL_0`` and so
    on; and where they are from.
    """
    if "config.json" in lora.sidecars:
        config = lora.config
        by_number = config.get("id2label")
        if isinstance(by_number, dict) and len(by_number) == count:
            return [str(by_number.get(str(n), f"LABEL_{n}")) for n in range(count)], "its config"
    if CARD in lora.sidecars:
        names = card_labels(lora.read_sidecar(CARD).decode("utf-8", errors="replace"))
        if len(names) == count:
            return names, "its card"
    return [f"LABEL_{number}" for number in range(count)], "the adapter names none: name them"


def card_labels(card: str) -> list[str]:
    """The labels in the front matter of a card, in their order; empty if it lists none."""
    matter = _FRONT_MATTER.match(card)
    if matter is None:
        return []
    text = matter[1]
    if match := _BY_NUMBER.search(text):
        pairs = [line.partition(":") for line in match[1].splitlines() if line.strip()]
        by_number: Mapping[str, str] = {_bare(key): _bare(name) for key, _, name in pairs}
        return [by_number[str(n)] for n in range(len(by_number)) if str(n) in by_number]
    if match := _LISTED.search(text):
        return [_bare(line.strip().removeprefix("-")) for line in match[1].splitlines()]
    if match := _IN_LINE.search(text):
        return [_bare(each) for each in match[1].split(",")]
    return []


def _bare(text: str) -> str:
    return text.strip().strip("'\"")

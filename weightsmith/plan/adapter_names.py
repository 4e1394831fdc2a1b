"""Find the tensors of a base's files that an adapter means: names in memory are often others."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

RENAMED: Final = (
    ("", ""),
    ("model.", ""),
    ("", "model."),
    ("transformer.", ""),
    ("", "transformer."),
    ("model.language_model.", "language_model.model."),
    ("model.language_model.", "model."),
    ("", "language_model."),
    ("language_model.model.", "model.language_model."),
    ("language_model.model.", "model."),
    ("language_model.", ""),
    ("model.", "model.language_model."),
    ("model.", "backbone."),
    ("lm_head.", "embed_out."),
    ("", "vision_model."),
    ("vision_model.", ""),
)
"""How a tensor's name in memory (first) may begin otherwise in the base's files (second).

A base saved without its head lacks the first word (``h.0.attn`` for ``transformer.h.0.attn``), an
adapter trained without it too. Models of several modalities were renamed in transformers 4.52 and
5, and adapters may have been trained on their text model alone, or on a text model that a larger
one was made of. GPT-NeoX's output layer and Nemotron-H were renamed too.
Source: transformers 5.23 ``conversion_mapping.py``.
"""
_VISION: Final = (
    ("vision_tower.", "vision_tower.vision_model."),
    ("vision_tower.vision_model.", "vision_tower."),
)
"""CLIP and SigLIP lost a word in transformers 5, here as a part of another model."""


@dataclass(slots=True)
class Names:
    """Finds tensors by the names that one adapter has for them, and keeps how these differ."""

    has: Callable[[str], bool]
    """Whether the base has, or will have, a tensor of this name."""
    renamed: Mapping[str, str]
    """How names of this family's layers begin in memory, and how in files."""
    found: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Words that names have in memory and others that they have in files, and how often."""

    def find(self, name: str) -> str | None:
        """The base's tensor that the adapter means by a name."""
        return next((target for target in self._spellings(name) if self.has(target)), None)

    def place(self, name: str) -> str | None:
        """The same, and what differs is kept for the notes."""
        target = self.find(name)
        if target is not None and target != name:
            self.found[_difference(name, target)] += 1
        return target

    def notes(self, role: str) -> list[str]:
        """How names were found to differ, as sentences."""
        if not self.found:
            return []
        pairs = (
            f"{memory or 'nothing'} for {files or 'nothing'} ({count} times)"
            for (memory, files), count in self.found.items()
        )
        return [f"{role} spells names in another way than the base: {', '.join(pairs)}"]

    def _spellings(self, name: str) -> Iterator[str]:
        """Names that a tensor may have in files, the likeliest first."""
        inner = (*_VISION, *((f".{a}", f".{b}") for a, b in self.renamed.items()))
        for memory, files in RENAMED:
            if not name.startswith(memory):
                continue
            target = files + name.removeprefix(memory)
            yield target
            for old, new in inner:
                if old in target:
                    yield target.replace(old, new, 1)


def _difference(name: str, target: str) -> tuple[str, str]:
    """The words of two names without those that both begin or end with."""
    words = [name.split("."), target.split(".")]
    for end in (-1, 0):
        while all(words) and words[0][end] == words[1][end]:
            for each in words:
                each.pop(end)
    return ".".join(words[0]), ".".join(words[1])

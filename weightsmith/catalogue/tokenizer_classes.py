"""What transformers 5 takes for granted about tokenizers: ``readers/*.toml``, read here."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import Final, Literal

from weightsmith.catalogue.schema import EntryT, parse_entries
from weightsmith.errors import CatalogueInvalid

_FOLDER: Final = resources.files("weightsmith.catalogue") / "readers"


@dataclass(frozen=True, slots=True)
class TokenizerClass:
    """How classes of these names cut text, whatever ``tokenizer.json`` says."""

    names: tuple[str, ...]
    kind: Literal["bytes", "spaces", "gemma", "words"]
    """Pairs of bytes as GPT-2's; sentencepiece's marked spaces as LLaMA's, which puts one before a
    text, or as Gemma's, which does not; or BERT's words.
    """
    normalizer: str = ""
    """The type of the one normalizer; empty where there is none."""
    split: str = ""
    """The regular expression that cuts a text first; empty for GPT-2's own."""
    digits: bool = False
    """Whether digits are cut apart first."""
    prefix_space: bool = False
    """Whether a space is put before the text where ``add_prefix_space`` is not said."""


@dataclass(frozen=True, slots=True)
class ModelTypes:
    """Model types whose tokenizers are of one class by transformers' own table."""

    names: tuple[str, ...]
    tokenizer_class: str


@dataclass(frozen=True, slots=True)
class Named:
    """A set of model types."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KnownClasses:
    """The whole table."""

    classes: Mapping[str, TokenizerClass]
    """By name, without a "Fast" at its end."""
    registered: Mapping[str, str]
    """The class of each model type."""
    overruled: frozenset[str]
    """Model types for which the class that a folder names does not count."""
    native: frozenset[str]
    """Model types that need no code of a folder."""


@functools.cache
def load_known_classes() -> KnownClasses:
    """The whole table.

    Raises: CatalogueInvalid, if the installed catalogue is damaged.
    """
    faults: list[str] = []
    classes = _entries("tokenizer_classes", "tokenizer_class", TokenizerClass, faults)
    registered = _entries("model_types", "model_type", ModelTypes, faults)
    overruled, native = (_entries(f, "model_type", Named, faults) for f in ("overruled", "native"))
    if faults:
        raise CatalogueInvalid(count=len(faults), context=faults)
    return KnownClasses(
        MappingProxyType({name: each for each in classes for name in each.names}),
        MappingProxyType({n: each.tokenizer_class for each in registered for n in each.names}),
        frozenset(name for each in overruled for name in each.names),
        frozenset(name for each in native for name in each.names),
    )


def _entries(file: str, heading: str, kind: type[EntryT], faults: list[str]) -> list[EntryT]:
    text = (_FOLDER / f"{file}.toml").read_text("utf-8")
    return parse_entries(kind, heading, text, f"{file}.toml", faults)

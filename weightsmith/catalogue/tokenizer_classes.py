"""What transformers 5 assumes of tokenizers, by class and model type: ``readers/*.toml``."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from weightsmith.catalogue.load import load_entries


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
    classes = load_entries(TokenizerClass, "tokenizer_class", "readers/tokenizer_classes")
    registered = load_entries(ModelTypes, "model_type", "readers/model_types")
    overruled = load_entries(Named, "model_type", "readers/overruled")
    native = load_entries(Named, "model_type", "readers/native")
    return KnownClasses(
        MappingProxyType({name: each for each in classes for name in each.names}),
        MappingProxyType({n: each.tokenizer_class for each in registered for n in each.names}),
        frozenset(name for each in overruled for name in each.names),
        frozenset(name for each in native for name in each.names),
    )

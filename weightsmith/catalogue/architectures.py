"""Which tensors a model of a known architecture must have, by its config."""

import functools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from weightsmith.catalogue.load import load_entries

_SYMBOLS: Final = {
    "vocabulary": "vocab_size",
    "hidden": "hidden_size",
    "intermediate": "intermediate_size",
    "heads": "num_attention_heads",
}
"""Numbers that shapes are made of, by the config key that holds them."""
_MOST_LAYERS: Final = 10_000
"""A config may say any number, and each layer takes memory."""
_NUMBER: Final = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Architecture:
    """The tensors of a family of models; a shape is ``"rows columns"``, products of `_SYMBOLS`."""

    id: str
    model_types: tuple[str, ...]
    sources: tuple[str, ...]
    once: Mapping[str, str]
    layer: Mapping[str, str]
    """Shapes of the tensors of each layer, by name with ``{}`` for the layer's number."""
    untied: Mapping[str, str] = field(default_factory=dict)
    """Shapes of tensors of the model's head, if ``tie_word_embeddings`` is not true."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The tensors that a model must have by its config."""

    shapes: Mapping[str, tuple[int, ...]]
    """Every tensor that must be there."""
    layers: int
    layer_names: frozenset[str]
    """Names of a layer's tensors, with ``{}`` for its number."""
    tied: bool
    """Whether the output layer is the input embedding."""

    def beyond(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that belong to a layer which the config does not have."""
        return [
            name
            for name in names
            if (match := _NUMBER.search(name))
            and int(match[1]) >= self.layers
            and _NUMBER.sub(".{}.", name, count=1) in self.layer_names
        ]


@functools.cache
def load_architectures() -> tuple[Architecture, ...]:
    """All architectures.

    Raises: CatalogueInvalid, if the installed catalogue is damaged.
    """
    return load_entries(Architecture, "architecture", "architectures")


def expected_tensors(config: Mapping[str, Any]) -> Expected | None:
    """What a model of this config must hold; None where its architecture is not known.

    Raises: ValueError, if the config of a known architecture lacks a number that shapes are made
    of; its text says which.
    """
    model_type = config.get("model_type")
    known = next((a for a in load_architectures() if model_type in a.model_types), None)
    if known is None or "text_config" in config:  # a config of several models
        return None
    numbers = {symbol: _count(config, key) for symbol, key in _SYMBOLS.items()}
    layers = _count(config, "num_hidden_layers", most=_MOST_LAYERS)
    numbers["kv_heads"] = _count(config, "num_key_value_heads", numbers["heads"])
    numbers["head"] = _count(config, "head_dim", numbers["hidden"] // numbers["heads"])
    tied = config.get("tie_word_embeddings") is True
    wanted = dict(known.once) if tied or _headless(config) else {**known.once, **known.untied}
    for number in range(layers):
        wanted |= {name.format(number): shape for name, shape in known.layer.items()}
    shapes = {
        name: tuple(
            math.prod(numbers[symbol] for symbol in dimension.split("*"))
            for dimension in shape.split()
        )
        for name, shape in wanted.items()
    }
    return Expected(shapes, layers, frozenset(known.layer), tied)


def _headless(config: Mapping[str, Any]) -> bool:
    """Whether the config is that of a model without an output layer, ``MistralModel``."""
    names = config.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else ""
    return name.endswith("Model") and not name.endswith("LMHeadModel")


def _count(
    config: Mapping[str, Any], key: str, default: int | None = None, *, most: int = 2**31 - 1
) -> int:
    """Raises: ValueError, if there is no such number, or one above `most`."""
    value = config.get(key)
    if value is None and default is not None:
        return default
    if type(value) is not int or not 0 < value <= most:
        raise ValueError(f"{key} is {value!r}" if key in config else f"{key} is missing")
    return value

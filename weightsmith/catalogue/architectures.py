"""Which tensors a model of a known architecture must have, by its config."""

import functools
import math
from collections.abc import Mapping
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


@dataclass(frozen=True, slots=True)
class Architecture:
    """The tensors of a family of models; a shape is ``"rows columns"``, products of `_SYMBOLS`."""

    id: str
    model_types: tuple[str, ...]
    sources: tuple[str, ...]
    once: Mapping[str, str]
    layer: Mapping[str, str]
    """Once a layer, with ``{}`` for its number."""
    untied: Mapping[str, str] = field(default_factory=dict)
    """Only where ``tie_word_embeddings`` is not true."""


@functools.cache
def load_architectures() -> tuple[Architecture, ...]:
    """All architectures.

    Raises: CatalogueInvalid, if the installed catalogue is damaged.
    """
    return load_entries(Architecture, "architecture", "architectures")


def expected_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]] | None:
    """Every tensor that a model of this config must have; None where its architecture is not
    known.
    """
    model_type = config.get("model_type")
    known = next((a for a in load_architectures() if model_type in a.model_types), None)
    if known is None:
        return None
    try:
        numbers = {symbol: int(config[key]) for symbol, key in _SYMBOLS.items()}
        layers = int(config["num_hidden_layers"])
    except (KeyError, TypeError, ValueError):
        return None
    numbers["kv_heads"] = int(config.get("num_key_value_heads") or numbers["heads"])
    numbers["head"] = int(config.get("head_dim") or numbers["hidden"] // numbers["heads"])
    wanted = dict(known.once)
    if not config.get("tie_word_embeddings"):
        wanted |= known.untied
    for number in range(layers):
        wanted |= {name.format(number): shape for name, shape in known.layer.items()}
    return {
        name: tuple(
            math.prod(numbers[symbol] for symbol in dimension.split("*"))
            for dimension in shape.split()
        )
        for name, shape in wanted.items()
    }

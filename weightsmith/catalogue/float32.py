"""Which parameters an architecture keeps in float32 on purpose, by its config."""

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from weightsmith.catalogue.load import load_entries


@dataclass(frozen=True, slots=True)
class Float32:
    """What models of some types keep in float32; a name is whole words between dots."""

    model_types: tuple[str, ...]
    """``"*"``: any."""
    in_float16: tuple[str, ...]
    """Kept where float16 is wanted, whose range is too small for them."""
    in_16_bits: tuple[str, ...]
    """Kept where float16 or bfloat16 is wanted, which are too coarse for them."""
    sources: tuple[str, ...]


@functools.cache
def load_float32() -> tuple[Float32, ...]:
    """All entries.

    Raises: CatalogueInvalid, if the installed catalogue is damaged.
    """
    return load_entries(Float32, "float32", "float32")


def float32_names(config: Mapping[str, Any], dtype: str) -> re.Pattern[str] | None:
    """A pattern found in the names of tensors that a model of this config keeps in float32 even
    though `dtype`, a format code, is wanted; None if it keeps none.
    """
    if dtype not in {"F16", "BF16"}:
        return None
    types = {"*", *_model_types(config)}
    names = {
        name
        for entry in load_float32()
        if types.intersection(entry.model_types)
        for name in (*entry.in_16_bits, *(entry.in_float16 if dtype == "F16" else ()))
    }
    either = "|".join(re.escape(name) for name in sorted(names))
    return re.compile(rf"(?:^|\.)({either})(?:\.|$)") if names else None


def _model_types(config: Mapping[str, Any]) -> Iterator[str]:
    """The model types of a config and of the parts that it is made of."""
    if isinstance(config.get("model_type"), str):
        yield config["model_type"]
    for part in config.values():
        if isinstance(part, dict):
            yield from _model_types(part)

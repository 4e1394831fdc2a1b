"""How families of models hold the experts of a layer, in memory and in files."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from weightsmith.catalogue.load import load_entries

Order = Literal["out in", "in out"]
"""How an expert's matrix lies: with a row an output, or a row an input."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of the module that holds a layer's experts, and its names in files."""

    name: str
    single: tuple[str, ...] = ()
    """With ``{}`` for the number of an expert, whose outputs these tensors share in this order."""
    stacked: tuple[str, ...] = ()
    """Names that a tensor of all experts may have, after the layer's own."""


@dataclass(frozen=True, slots=True)
class ExpertFamily:
    """Models whose experts are held alike."""

    id: str
    model_types: tuple[str, ...]
    module: str
    """What the module is called in memory, after the layer's name: ``mlp.experts``."""
    parameter: tuple[Parameter, ...]
    """In the order in which the module makes them."""
    sources: tuple[str, ...]
    memory: Order = "out in"
    stack: Order | None = None
    """How files stack the experts; None: as in memory."""
    transposed: bool = False
    """Whether the module has ``is_transposed`` set; peft since 0.19 reads it."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Other names of a layer's tensors: how they begin in memory, and how in files."""


@functools.cache
def load_expert_families() -> tuple[ExpertFamily, ...]:
    """All families.

    Raises: CatalogueInvalid, if the installed catalogue is damaged.
    """
    return load_entries(ExpertFamily, "experts", "experts")


def expert_family(config: Mapping[str, Any]) -> ExpertFamily | None:
    """The family that a model belongs to by its config; None where that is not known.

    A config of several models says it of the model as a whole, or of its text part.
    """
    for part in (config, config.get("text_config"), config.get("thinker_config")):
        model_type = part.get("model_type") if isinstance(part, dict) else None
        for family in load_expert_families():
            if model_type in family.model_types:
                return family
    return None

"""Make steps of an adapter's tensors, or say why they do not fit the tensor that they are for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from weightsmith.codecs.lora_steps import Step, StepKind
from weightsmith.formats.adapter import AdapterConfig
from weightsmith.formats.adapter_parts import PartKind
from weightsmith.formats.tensors import TensorInfo

Found = tuple[Step, tuple[TensorInfo, ...]] | str | None
"""A step and what it takes; a sentence, where the tensors do not fit; None where there are none."""


@dataclass(slots=True)
class Change:
    """What one adapter does to one tensor."""

    module: str
    """The tensor's module, as the adapter names it."""
    parts: dict[PartKind, TensorInfo]
    """The adapter's tensors for it."""

    @property
    def is_product(self) -> bool:
        """Whether it multiplies two factors."""
        return any(kind in self.parts for kind in ("lora_A", "lora_embedding_A"))


def _product(output: TensorInfo, change: Change, config: AdapterConfig) -> Found:
    parts, module = change.parts, change.module
    kinds: tuple[PartKind, PartKind] = ("lora_A", "lora_B")
    if "lora_embedding_A" in parts or "lora_embedding_B" in parts:
        kinds = ("lora_embedding_A", "lora_embedding_B")
    a, b = (parts.get(kind) for kind in kinds)
    magnitude = parts.get("lora_magnitude_vector")
    if a is None and b is None and magnitude is None:
        return None
    if a is None or b is None:
        return f"{module} has not both of {' and '.join(kinds)}"
    if {len(a.shape), len(b.shape), len(output.shape)} != {2}:
        return f"{module} is no linear layer or embedding: {a}"
    rank, into, out = a.shape[0], a.shape[1], b.shape[0]
    if not rank == b.shape[1] == config.rank_of(module):
        return f"{module} has rank {rank}, where the config says {config.rank_of(module)}"
    if config.dora != (magnitude is not None) or (magnitude is not None and magnitude.numel != out):
        return f"use_dora is {config.dora}, and lora_magnitude_vector of {module} is {magnitude}"
    kind = _orientation(output.shape, (out, into), config, is_embedding=kinds[0] != "lora_A")
    if kind is None:
        return f"{output.name} is {list(output.shape)}, the adapter's product {[out, into]}"
    infos = (a, b) if magnitude is None else (a, b, magnitude)
    return Step(kind, config.scale_of(module), dora=config.dora), infos


def _orientation(
    shape: tuple[int, ...], product: tuple[int, int], config: AdapterConfig, *, is_embedding: bool
) -> StepKind | None:
    """How the product lies in the tensor; None where it does not fit.

    Shapes decide, and for a square, which shows nothing, ``fan_in_fan_out``.
    """
    if is_embedding:
        return "embedding" if shape == product[::-1] else None
    if shape == product and not (config.fan_in_fan_out and shape == product[::-1]):
        return "linear"
    return "transposed" if shape == product[::-1] else None


def _bias(output: TensorInfo, change: Change, config: AdapterConfig) -> Found:
    bias = change.parts.get("lora_bias")
    if bias is None:
        return None
    if bias.shape != output.shape:
        return f"{output.name} is {list(output.shape)}, the adapter's {list(bias.shape)}"
    return Step("bias", config.scale_of(change.module)), (bias,)


def _token_rows(output: TensorInfo, change: Change, config: AdapterConfig) -> Found:
    delta = change.parts.get("token_rows")
    if delta is None:
        return None
    rows = config.rows_of(change.module)
    if rows is None:
        return f"the config does not say which rows of {change.module} were trained"
    if delta.shape != (len(rows), *output.shape[1:]):
        return f"{delta.name} is {list(delta.shape)}, for {len(rows)} rows of {list(output.shape)}"
    return Step("rows", rows=rows), (delta,)


FINDERS: Final[tuple[Callable[[TensorInfo, Change, AdapterConfig], Found], ...]] = (
    _product,
    _bias,
    _token_rows,
)
"""Each looks for one kind of step that changes a tensor; in the order in which they are done."""

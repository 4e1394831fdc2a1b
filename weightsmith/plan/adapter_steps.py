"""Make steps of an adapter's tensors, or say why they do not fit the tensor that they are for."""

from dataclasses import dataclass

from weightsmith.codecs.lora.steps import Flag, Step, StepKind
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
    is_parameter: bool = False
    """Whether it was trained as a parameter itself, and not as a layer's weight."""

    @property
    def is_product(self) -> bool:
        """Whether it multiplies two factors."""
        return any(kind in self.parts for kind in ("lora_A", "lora_embedding_A"))


def product(output: TensorInfo, change: Change, config: AdapterConfig) -> Found:
    """The product of two factors, of a layer, a convolution or an embedding."""
    parts, module = change.parts, change.module
    kinds: tuple[PartKind, PartKind] = ("lora_A", "lora_B")
    if "lora_embedding_A" in parts or "lora_embedding_B" in parts:
        kinds = ("lora_embedding_A", "lora_embedding_B")
    a, b = (parts.get(kind) for kind in kinds)
    magnitude = parts.get("lora_magnitude_vector")
    if (a is None and b is None and magnitude is None) or "lora_E" in parts:
        return None
    if a is None or b is None:
        return f"{module} has not both of {' and '.join(kinds)}"
    if len(a.shape) != len(b.shape) or not 2 <= len(a.shape) == len(output.shape):
        return f"{module} is no linear layer, convolution or embedding: {a}"
    if not a.numel * b.numel:
        return f"{module} has empty factors: {a} and {b}"
    # Of a convolution A has the kernel, and B is one of size one.
    rank, into, out = a.shape[0], a.numel // a.shape[0], b.shape[0]
    named = f"{module}.weight" if change.is_parameter else module
    if not rank == b.numel // out == config.rank_of(named):
        return f"{module} has rank {rank}, where the config says {config.rank_of(named)}"
    if config.dora != (magnitude is not None) or (magnitude is not None and magnitude.numel != out):
        return f"use_dora is {config.dora}, and lora_magnitude_vector of {module} is {magnitude}"
    if len(a.shape) > 2 and (config.dora or (out, *a.shape[1:]) != output.shape):
        return f"{output.name} is {list(output.shape)}, the adapter's product {[out, *a.shape[1:]]}"
    shape = (output.shape[0], output.numel // output.shape[0])
    kind = _orientation(shape, (out, into), config, is_embedding=kinds[0] != "lora_A")
    if kind is None:
        return f"{output.name} is {list(output.shape)}, the adapter's product {[out, into]}"
    infos = (a, b) if magnitude is None else (a, b, magnitude)
    flags: set[Flag] = {"dora"} if config.dora else set()
    if change.is_parameter:
        flags.add("rounded")
    return Step(kind, config.scale_of(named), frozenset(flags)), infos


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


def bias(output: TensorInfo, change: Change, config: AdapterConfig) -> Found:
    """What ``lora_bias`` adds to a layer's own."""
    given = change.parts.get("lora_bias")
    if given is None:
        return None
    if given.shape != output.shape:
        return f"{output.name} is {list(output.shape)}, the adapter's {list(given.shape)}"
    return Step("bias", config.scale_of(change.module)), (given,)


def token_rows(output: TensorInfo, change: Change, config: AdapterConfig) -> Found:
    """Rows of single tokens, trained in place of the base's."""
    delta = change.parts.get("token_rows")
    if delta is None:
        return None
    rows = config.rows_of(change.module)
    if rows is None:
        return f"the config does not say which rows of {change.module} were trained"
    if delta.shape != (len(rows), *output.shape[1:]):
        return f"{delta.name} is {list(delta.shape)}, for {len(rows)} rows of {list(output.shape)}"
    return Step("rows", rows=rows), (delta,)

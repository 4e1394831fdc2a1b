"""Make steps of the tensors of adapters that are no plain LoRA.

Source: peft 0.21 ``tuners/{adalora,loha,lokr,ia3,oft,vera,vblora}/layer.py``.
"""

import math
from typing import cast

from weightsmith.codecs.lora.steps import Flag, Step
from weightsmith.formats.adapter import AdapterConfig
from weightsmith.formats.adapter_parts import PartKind
from weightsmith.formats.tensors import TensorInfo
from weightsmith.plan.adapter_steps import Change, Found


def adalora(output: TensorInfo, change: Change, config: AdapterConfig) -> Found:
    """Singular values between the factors; ranks that training dropped are not in the file."""
    kinds: tuple[PartKind, ...] = ("lora_A", "lora_B", "lora_E")
    if "lora_E" not in change.parts:
        return None
    if isinstance(given := _all(change, kinds), str):
        return given
    a, b, e = given
    rank = a.shape[0]
    shape = output.shape[::-1] if config.fan_in_fan_out else output.shape
    if b.shape[1:] != (rank,) or e.numel != rank or (b.shape[0], *a.shape[1:]) != shape:
        return _misfit(output, given)
    scale = config.alpha if config.alpha > 0 else float(config.size)
    flags: frozenset[Flag] = frozenset({"turned"} if config.fan_in_fan_out else ())
    return Step("adalora", scale, flags, divisor=config.size), given


def loha(output: TensorInfo, change: Change, config: AdapterConfig) -> Found:
    """Two products, multiplied element by element."""
    kinds: tuple[PartKind, ...] = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
    if not change.parts.keys() & set(kinds):
        return None
    if isinstance(given := _all(change, kinds), str):
        return given
    rank = config.rank_of(change.module)
    wide = output.numel // output.shape[0]
    shapes = ((output.shape[0], rank), (rank, wide))
    if tuple(each.shape for each in given) != (*shapes, *shapes):
        return _misfit(output, given)
    return Step("loha", config.scale_of(change.module)), given


def lokr(output: TensorInfo, change: Change, config: AdapterConfig) -> Found:
    """A Kronecker product, of which either factor may be a product itself."""
    given: list[TensorInfo] = []
    flags: set[Flag] = set()
    sides: list[tuple[int, ...]] = []
    for number in ("1", "2"):
        kinds = cast(
            "tuple[PartKind, ...]", (f"lokr_w{number}", f"lokr_w{number}_a", f"lokr_w{number}_b")
        )
        whole, a, b = (change.parts.get(kind) for kind in kinds)
        if whole is not None and a is None and b is None:
            given.append(whole)
            sides.append(whole.shape)
        elif whole is None and a is not None and b is not None:
            flags.add("low1" if number == "1" else "low2")
            given += [a, b]
            sides.append((a.shape[0], *b.shape[1:]) if a.shape[1:] == b.shape[:1] else ())
        elif whole is None and a is None and b is None:
            continue
        else:
            return f"{change.module} has not {kinds[0]} alone, nor {kinds[1]} and {kinds[2]}"
    if not given:
        return None
    if [len(side) for side in sides] != [2, 2] or tuple(
        left * right for left, right in zip(*sides, strict=True)
    ) != output.shape:
        return _misfit(output, tuple(given))
    return Step("lokr", config.scale_of(change.module), frozenset(flags)), tuple(given)


def ia3(output: TensorInfo, change: Change, config: AdapterConfig) -> Found:
    """A factor for each output, which goes for the bias too, or for each input."""
    scales = change.parts.get("ia3_l")
    if scales is None:
        return None
    for_outputs = scales.shape == (scales.numel, 1)
    lies_in_rows = for_outputs != config.fan_in_fan_out or len(output.shape) == 1
    due = output.shape[0] if lies_in_rows else output.shape[-1]
    if (
        len(output.shape) > 2
        or len(scales.shape) != 2
        or scales.numel not in {due} & set(scales.shape)
    ):
        return _misfit(output, (scales,))
    return Step("ia3", flags=frozenset() if lies_in_rows else frozenset({"turned"})), (scales,)


def oft(output: TensorInfo, change: Change, config: AdapterConfig) -> Found:
    """Rotations of the inputs, some of them at a time."""
    angles = change.parts.get("oft_R")
    if angles is None:
        return None
    above = angles.shape[-1]
    size = (1 + math.isqrt(1 + 8 * above)) // 2
    if (
        len(output.shape) != 2
        or len(angles.shape) != 2
        or config.fan_in_fan_out
        or size * (size - 1) // 2 != above
        or output.shape[1] % size
        or angles.shape[0] not in {1, output.shape[1] // size}
    ):
        return _misfit(output, (angles,))
    flags: frozenset[Flag] = frozenset({"neumann"} if config.terms else ())
    return Step("oft", flags=flags, divisor=config.terms, top=size), (angles,)


def vera(output: TensorInfo, change: Change, config: AdapterConfig) -> Found:
    """Random projections that all layers share, scaled by two learned vectors."""
    kinds: tuple[PartKind, ...] = ("vera_A", "vera_B", "vera_lambda_d", "vera_lambda_b")
    if not change.parts.keys() & {"vera_lambda_d", "vera_lambda_b"}:
        return None
    if isinstance(given := _all(change, kinds), str):
        return given
    a, b, d, gain = given
    rank = config.rank
    if (
        len(a.shape) != 2
        or len(b.shape) != 2
        or not a.shape[0] == b.shape[1] == d.numel == rank
        or len(output.shape) != 2
        or config.fan_in_fan_out
        or (gain.numel, a.shape[1] >= output.shape[1], b.shape[0] >= output.shape[0])
        != (output.shape[0], True, True)
    ):
        return _misfit(output, given)
    return Step("vera", top=output.shape[1]), given


def vblora(output: TensorInfo, change: Change, config: AdapterConfig) -> Found:
    """Factors whose pieces are mixtures of vectors of a bank that all layers share."""
    kinds: tuple[PartKind, ...] = ("vblora_vector_bank", "vblora_logits_A", "vblora_logits_B")
    if not change.parts.keys() & set(kinds[1:]):
        return None
    if isinstance(given := _all(change, kinds), str):
        return given
    bank, a, b = given
    if (
        [len(each.shape) for each in given] != [2, 3, 3]
        or not bank.shape[0] == a.shape[2] == b.shape[2] >= config.size
        or not a.shape[0] == b.shape[1] == config.rank
        or config.fan_in_fan_out
        or (b.shape[0] * bank.shape[1], a.shape[1] * bank.shape[1]) != output.shape
    ):
        return _misfit(output, given)
    return Step("vblora", top=config.size), given


def _all(change: Change, kinds: tuple[PartKind, ...]) -> tuple[TensorInfo, ...] | str:
    """The tensors of these kinds, or which is missing."""
    missing = [kind for kind in kinds if kind not in change.parts]
    if missing:
        return f"{change.module} has no {', '.join(missing)}"
    return tuple(change.parts[kind] for kind in kinds)


def _misfit(output: TensorInfo, given: tuple[TensorInfo, ...]) -> str:
    shapes = ", ".join(f"{each.name} {list(each.shape)}" for each in given)
    return f"{output.name} is {list(output.shape)}, which these do not fit: {shapes}"

"""Guess from a few small tensors whether a checkpoint is a model or a delta."""

import struct
from dataclasses import dataclass
from typing import Final, Literal

from weightsmith.checkpoint.checkpoint import Checkpoint, Tensor
from weightsmith.formats.tensors import TensorInfo

GuessedKind = Literal["model", "delta", "unknown"]

NEAR_ZERO: Final = 0.05
"""A delta's norm weights: differences of two trainings, seen at 0.001 and below."""
NEAR_ONE: Final = 0.2
"""A model's final norm weights lie around 1 and above."""
_SAMPLED: Final = 8
_LARGEST_NUMEL: Final = 1_000_000
_CENTRED_AT_ZERO: Final = ("gemma", "recurrent_gemma", "nemotron", "qwen3_next", "qwen3_5")
"""Model types, by their first letters, whose norms multiply by one plus the weight."""


@dataclass(frozen=True, slots=True)
class Guess:
    """What a checkpoint seems to be, and why, as a clause."""

    kind: GuessedKind
    reason: str


def guess_kind(checkpoint: Checkpoint) -> Guess:
    """Model or delta, from ``rotary_emb.inv_freq`` and norm weights; reads at most a few of them.

    A model's ``inv_freq`` begins with 1, a delta's is all zero; the norm weights of a model are
    near 1 or above, those of a delta near 0.
    """
    for tensor in checkpoint.tensors.values():
        if tensor.info.name.endswith("rotary_emb.inv_freq") and _is_readable(tensor.info):
            if not any(floats(checkpoint, tensor)):
                return Guess("delta", f"its {tensor.info.name} is all zero")
            break
    model_type = str(checkpoint.config.get("model_type", ""))
    norms = _norms(checkpoint)
    if not norms or model_type.startswith(_CENTRED_AT_ZERO):
        return Guess("unknown", "it has no norm weights that would tell")
    means = {t.info.name: _mean_size(floats(checkpoint, t)) for t in norms}
    name = max(means, key=lambda each: means[each])
    if means[name] < NEAR_ZERO:
        return Guess("delta", f"its norms are near 0 ({name}: {means[name]:.2g})")
    if means[name] > NEAR_ONE:
        return Guess("model", f"its norms are near 1 ({name}: {means[name]:.2g})")
    return Guess("unknown", f"its norms are near neither 0 nor 1 ({name}: {means[name]:.2g})")


def _norms(checkpoint: Checkpoint) -> list[Tensor]:
    """The final norm, whose name is the shortest, and a few more."""
    found = [
        tensor
        for name, tensor in checkpoint.tensors.items()
        if len(tensor.info.shape) == 1
        and name.endswith(".weight")
        and any(word in name for word in ("norm", "ln_", ".ln"))
        and _is_readable(tensor.info)
    ]
    return sorted(found, key=lambda tensor: (len(tensor.info.name), tensor.info.name))[:_SAMPLED]


def _is_readable(info: TensorInfo) -> bool:
    """Whether there is something to read, and not so much that it is no norm at all."""
    return info.dtype in _FORMATS and 0 < info.numel <= _LARGEST_NUMEL


def _mean_size(values: list[float]) -> float:
    return sum(map(abs, values)) / len(values)


_FORMATS: Final = {"F16": "e", "F32": "f", "F64": "d", "BF16": "f"}


def floats(checkpoint: Checkpoint, tensor: Tensor) -> list[float]:
    """A small tensor's values, in plain Python; float dtypes of 16 bits and more."""
    raw = checkpoint.read_small(tensor.info.name)
    if tensor.info.dtype == "BF16":  # the upper half of a float32
        wide = bytearray(2 * len(raw))
        wide[2::4], wide[3::4] = raw[0::2], raw[1::2]
        raw = bytes(wide)
    return list(struct.unpack(f"<{tensor.info.numel}{_FORMATS[tensor.info.dtype]}", raw))

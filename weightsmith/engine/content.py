"""Read every byte of a checkpoint once: digests, and values that no model should hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.digest import span_digest, tensor_digest
from weightsmith.engine.spans import Advance, Buffers, visit_spans
from weightsmith.formats.tensors import TensorInfo

_EXPONENT_FRACTION: Final = {
    "F16": ("u2", 0x7C00, 0x03FF),
    "BF16": ("u2", 0x7F80, 0x007F),
    "F32": ("u4", 0x7F800000, 0x007FFFFF),
    "F64": ("u8", 0x7FF0000000000000, 0x000FFFFFFFFFFFFF),
    "F8_E5M2": ("u1", 0x7C, 0x03),
}
"""Unsigned type and the bits of exponent and fraction; all ones in the exponent is no number."""


@dataclass(frozen=True, slots=True)
class TensorContent:
    """What reading one tensor told."""

    digest: str
    nans: int
    infinities: int


def read_content(
    checkpoint: Checkpoint, buffers: Sequence[Buffers], advance: Advance
) -> dict[str, TensorContent]:
    """Digest all tensors by name, and count what is not finite in the floats among them.

    Memory: one span a worker, and its mask.
    """
    infos = {name: tensor.info for name, tensor in checkpoint.tensors.items()}
    found = visit_spans(infos.values(), checkpoint.read_into, buffers, advance, _examine)
    return {
        name: TensorContent(
            digest=tensor_digest(infos[name], [digest for digest, _, _ in parts]),
            nans=sum(nans for _, nans, _ in parts),
            infinities=sum(infinities for _, _, infinities in parts),
        )
        for name, parts in found.items()
    }


def _examine(info: TensorInfo, block: memoryview) -> tuple[bytes, int, int]:
    """Digest, NaNs and infinities of one span, by its bits."""
    import numpy as np

    digest = span_digest(block)
    if info.dtype not in _EXPONENT_FRACTION:
        return digest, 0, 0
    kind, exponent, fraction = _EXPONENT_FRACTION[info.dtype]
    bits = np.frombuffer(block, kind)
    special = bits[(bits & bits.dtype.type(exponent)) == exponent]
    nans = int(np.count_nonzero(special & bits.dtype.type(fraction)))
    return digest, nans, len(special) - nans

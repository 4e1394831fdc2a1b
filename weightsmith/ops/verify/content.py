"""Read every byte of a checkpoint once: digests, and values that no model should hold."""

from collections.abc import Sequence
from dataclasses import dataclass

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.digest import span_digest, tensor_digest
from weightsmith.codecs.nonfinite import count_nonfinite
from weightsmith.engine.spans import Advance, Buffers, visit_spans
from weightsmith.formats.tensors import TensorInfo


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
    """Digest, NaNs and infinities of one span."""
    return span_digest(block), *count_nonfinite(block, info.dtype)

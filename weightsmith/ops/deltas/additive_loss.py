"""Compute the sums of an additive delta before it is written, and compare them with the target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.digest import span_digest, tensor_digest
from weightsmith.codecs.base import Range
from weightsmith.codecs.measure import Measure, combine
from weightsmith.codecs.nonfinite import count_nonfinite
from weightsmith.engine.spans import Buffers, map_spans
from weightsmith.formats.tensors import TensorInfo
from weightsmith.progress import Progress


@dataclass(frozen=True, slots=True)
class Sum:
    """What base + delta gives for one tensor."""

    digest: str
    """Of the sum; empty if it holds NaNs, whose bits may differ from one processor to another."""
    difference: Measure
    """How the sum differs from the target."""


def sum_up(
    sums: Checkpoint, target: Checkpoint, buffers: Sequence[Buffers], progress: Progress
) -> Mapping[str, Sum]:
    """Compute every tensor of `sums` and compare it with the target's; nothing is written.

    Returns: the sums, by tensor name.
    Memory: for each worker a span of the sum, of the target, and of what the sum is made from.
    """
    from weightsmith.codecs.span_measure import measure

    infos = {name: each.info for name, each in sums.tensors.items()}

    def visit(info: TensorInfo, span: Range, own: Buffers) -> tuple[bytes, int, Measure]:
        found, wanted = own.block(0, span.nbytes), own.block(1, span.nbytes)
        sums.read_into(info.name, span.start, found)
        target.read_into(info.name, span.start, wanted)
        progress.advance(span.nbytes)
        nans, _ = count_nonfinite(found, info.dtype)
        return span_digest(found), nans, measure(wanted, found, info.dtype, info.dtype)

    progress.begin("measuring the loss", sum(info.nbytes for info in infos.values()))
    parts = map_spans(infos.values(), buffers, visit)
    return {
        name: Sum(
            digest=""
            if any(nans for _, nans, _ in found)
            else tensor_digest(infos[name], [digest for digest, _, _ in found]),
            difference=combine(measure for _, _, measure in found),
        )
        for name, found in parts.items()
    }

"""Find out what an additive delta will not restore, before it is written."""

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
    """What base + delta is, for one tensor."""

    digest: str
    """Empty where there are NaNs, whose bits may differ from one processor to another."""
    difference: Measure
    """From the target."""


def sum_up(
    sums: Checkpoint, target: Checkpoint, buffers: Sequence[Buffers], progress: Progress
) -> Mapping[str, Sum]:
    """Make all sums, by name, and hold them against the target; nothing is written.

    Memory: a span of the sum, of the target, and of what the sum is made from, a worker.
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

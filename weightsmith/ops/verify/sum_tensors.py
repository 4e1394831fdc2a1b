"""Sums over all weights, as the releases of 2023 published them to check a result by."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from weightsmith.codecs.torch_views import import_torch, view
from weightsmith.engine.spans import Advance, Buffers, ReadTensor, visit_spans
from weightsmith.formats.tensors import SUMMABLE, TensorInfo


@dataclass(frozen=True, slots=True)
class Sums:
    """The sum of all elements of all float tensors, two ways."""

    float64: float
    """Each span summed in float64, the spans exactly: does not depend on order or threads."""
    float32: float
    """Each span, and then the spans in order, summed in float32, as the published scripts do by
    tensor.
    """


def sum_tensors(
    infos: Iterable[TensorInfo], read: ReadTensor, buffers: Sequence[Buffers], advance: Advance
) -> Sums:
    """Sum the float tensors among `infos`.

    Memory: one span a worker, and its float64 copy.
    """
    torch = import_torch()
    floats = [info for info in infos if info.dtype in SUMMABLE]

    def both(info: TensorInfo, block: memoryview) -> tuple[float, float]:
        values = view(block, info.dtype)
        return float(values.double().sum()), float(values.float().sum())

    found = visit_spans(floats, read, buffers, advance, both)
    parts = [part for info in floats for part in found[info.name]]
    single = torch.zeros((), dtype=torch.float32)
    for _, part in parts:
        single += part
    return Sums(math.fsum(double for double, _ in parts), float(single))

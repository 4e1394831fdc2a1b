"""Sums over all weights, as the releases of 2023 published them to check a result by."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from weightsmith.checkpoint.digest import span_count
from weightsmith.codecs.torch_views import import_torch, view
from weightsmith.engine.executors.threads import run_tasks
from weightsmith.engine.spans import Advance, Buffers, ReadTensor, span_range
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
    """Sum the float tensors among `infos`, one worker a set of buffers.

    Memory: one span a worker, and its float64 copy.
    """
    torch = import_torch()
    by_name = {info.name: info for info in infos if info.dtype in SUMMABLE}
    tasks = [
        (name, number)
        for name, info in by_name.items()
        for number in range(span_count(info.nbytes))
    ]
    doubles: dict[tuple[str, int], float] = {}
    singles: dict[tuple[str, int], float] = {}

    def worker(own: Buffers) -> Callable[[tuple[str, int]], None]:
        def sum_span(task: tuple[str, int]) -> None:
            name, number = task
            info = by_name[name]
            span = span_range(number, info.nbytes)
            block = own.block(0, span.nbytes)
            read(name, span.start, block)
            values = view(block, info.dtype)
            doubles[task] = float(values.double().sum())
            singles[task] = float(values.float().sum())
            advance(span.nbytes)

        return sum_span

    run_tasks(iter(tasks), [worker(own) for own in buffers])
    single = torch.zeros((), dtype=torch.float32)
    for task in tasks:
        single += singles[task]
    return Sums(math.fsum(doubles.values()), float(single))

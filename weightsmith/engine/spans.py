"""The unit of all work: spans of a tensor, the memory they pass through, and digests over them."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from weightsmith.checkpoint.digest import SPAN_NBYTES, span_count, span_digest, tensor_digest
from weightsmith.codecs.base import Range
from weightsmith.engine.executors.threads import run_tasks
from weightsmith.formats.tensors import TensorInfo

Found = TypeVar("Found")
Advance = Callable[[int], None]
"""Told how many bytes were just finished, from any thread."""
ReadTensor = Callable[[str, int, memoryview], None]
"""``read(name, start, buffer)`` fills `buffer` with a tensor's bytes from `start`."""


class Buffers:
    """A worker's memory, reused from span to span."""

    def __init__(self) -> None:
        """Start with nothing; each block grows to the largest span asked of it."""
        self._blocks: list[bytearray] = []

    def block(self, number: int, nbytes: int) -> memoryview:
        """A writable block of exactly `nbytes`, whose content is whatever it held before."""
        while len(self._blocks) <= number:
            self._blocks.append(bytearray())
        if len(self._blocks[number]) < nbytes:
            self._blocks[number] = bytearray(nbytes)
        return memoryview(self._blocks[number])[:nbytes]


def span_range(number: int, nbytes: int) -> Range:
    """The bytes of span `number` in a tensor of `nbytes`."""
    return Range(number * SPAN_NBYTES, min((number + 1) * SPAN_NBYTES, nbytes))


def map_spans(
    infos: Iterable[TensorInfo],
    buffers: Sequence[Buffers],
    visit: Callable[[TensorInfo, Range, Buffers], Found],
) -> dict[str, list[Found]]:
    """Call `visit` for every span, with a worker's own buffers; returns by tensor what it returned,
    in order.

    One worker a set of buffers.
    """
    by_name = {info.name: info for info in infos}
    found: dict[str, dict[int, Found]] = {name: {} for name in by_name}

    def worker(own: Buffers) -> Callable[[tuple[str, int]], None]:
        def visit_span(task: tuple[str, int]) -> None:
            name, number = task
            info = by_name[name]
            found[name][number] = visit(info, span_range(number, info.nbytes), own)

        return visit_span

    tasks = (
        (name, number)
        for name, info in by_name.items()
        for number in range(span_count(info.nbytes))
    )
    run_tasks(tasks, [worker(own) for own in buffers])
    return {name: [parts[n] for n in range(len(parts))] for name, parts in found.items()}


def visit_spans(
    infos: Iterable[TensorInfo],
    read: ReadTensor,
    buffers: Sequence[Buffers],
    advance: Advance,
    visit: Callable[[TensorInfo, memoryview], Found],
) -> dict[str, list[Found]]:
    """As `map_spans`, with the bytes of every span.

    Memory: one span a worker.
    """

    def read_and_visit(info: TensorInfo, span: Range, own: Buffers) -> Found:
        block = own.block(0, span.nbytes)
        read(info.name, span.start, block)
        part = visit(info, block)
        advance(span.nbytes)
        return part

    return map_spans(infos, buffers, read_and_visit)


def digest_tensors(
    infos: Iterable[TensorInfo], read: ReadTensor, buffers: Sequence[Buffers], advance: Advance
) -> dict[str, str]:
    """Digest whole tensors by name; memory as `visit_spans`."""
    by_name = {info.name: info for info in infos}
    spans = visit_spans(
        by_name.values(), read, buffers, advance, lambda _, block: span_digest(block)
    )
    return {name: tensor_digest(info, spans[name]) for name, info in by_name.items()}

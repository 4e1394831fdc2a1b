"""The unit of all work: spans of a tensor, the memory they pass through, and digests over them."""

from collections.abc import Callable, Iterable, Sequence

from weightsmith.checkpoint.digest import SPAN_NBYTES, span_count, span_digest, tensor_digest
from weightsmith.codecs.base import Range
from weightsmith.engine.executors.threads import run_tasks
from weightsmith.formats.tensors import TensorInfo

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


def digest_tensors(
    infos: Iterable[TensorInfo],
    read: ReadTensor,
    buffers: Sequence[Buffers],
    advance: Advance,
) -> dict[str, str]:
    """Digest whole tensors by name, one worker a set of buffers.

    Memory: one span a worker.
    """
    by_name = {info.name: info for info in infos}
    spans = {name: [b""] * span_count(info.nbytes) for name, info in by_name.items()}

    def worker(own: Buffers) -> Callable[[tuple[str, int]], None]:
        def digest_span(task: tuple[str, int]) -> None:
            name, number = task
            span = span_range(number, by_name[name].nbytes)
            block = own.block(0, span.nbytes)
            read(name, span.start, block)
            spans[name][number] = span_digest(block)
            advance(span.nbytes)

        return digest_span

    tasks = ((name, number) for name, parts in spans.items() for number in range(len(parts)))
    run_tasks(tasks, [worker(own) for own in buffers])
    return {name: tensor_digest(info, spans[name]) for name, info in by_name.items()}

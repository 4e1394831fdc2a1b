"""Fill one output file span by span, and open it again."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, Protocol, runtime_checkable

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.digest import SPAN_NBYTES, span_count, span_digest, tensor_digest
from weightsmith.codecs.base import Range, Work
from weightsmith.codecs.copy import Copy
from weightsmith.codecs.nonfinite import count_nonfinite
from weightsmith.engine.executors.threads import run_tasks
from weightsmith.engine.inputs import Countdown
from weightsmith.engine.read_back import Follow, Piece
from weightsmith.engine.spans import Advance, Buffers, digest_tensors, map_spans, span_range
from weightsmith.errors import DamagedInput, VerificationFailed
from weightsmith.formats.safetensors_header import read_header
from weightsmith.formats.tensors import TensorInfo
from weightsmith.plan.model import FilePlan, ShardPlan, TensorPlan

BELOW: Final = "\0"
"""Between a role and one of what is behind it; a role may be the name of a file, dots and all."""
Look = Callable[["TensorWork", Range, memoryview], None]
"""Sees a span of a tensor that was just made."""


class TensorWork:
    """One output tensor in the making: the state its spans share, the digests they leave."""

    def __init__(self, tensor: TensorPlan, inputs: Mapping[str, Checkpoint]) -> None:
        """Nothing is read yet."""
        self.tensor = tensor
        self.output = tensor.output
        self.codec = tensor.rule
        self._work = tensor.work
        self.digests: list[bytes] = [b""] * span_count(tensor.output.nbytes)
        self._inputs = tuple((inputs[each.role], each.info.name) for each in tensor.inputs)
        self._lock = threading.Lock()
        self._fetched: Sequence[tuple[Checkpoint, str]] = ()
        self._prepared = False
        self._below: _Below | Literal[False] | None = None
        """What `below` found, once it has looked."""
        self._unfinished = len(self.digests)

    def spans(self) -> Iterator[tuple["TensorWork", int]]:
        """This work with the number of each of its spans."""
        return ((self, number) for number in range(len(self.digests)))

    def prepared(self) -> Work:
        """The codec's work with its state, which the first thread that asks has made."""
        with self._lock:
            if not self._prepared:
                self._fetched = [each for each in self._inputs if not each[0].is_cached(each[1])]
                state = self.codec.prepare(self._work, self.read)
                self._work = replace(self._work, state=state)
                self._prepared = True
            return self._work

    def read(self, number: int, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with bytes of the input `number` from its byte `start`."""
        checkpoint, name = self._inputs[number]
        checkpoint.read_into(name, start, buffer)

    def make(self, span: Range, own: Buffers, out: memoryview) -> None:
        """Fill `out` with the bytes `span` of the output; what is read lies in other blocks.

        Where what it is made from is made by a rule too, and so on, the rules are followed down
        first, and applied from the lowest up. So a chain of hundreds of deltas takes no more of
        Python's stack than one, and two blocks of memory more.
        """
        steps: list[_Step] = []
        work, wanted = self, span
        while True:
            below = work.below()
            if below is not None and isinstance(work.codec, Copy):
                below.checkpoint.note_use(below.name)
                work = below.work
                continue
            prepared = work.prepared()
            ranges = work.codec.reads(prepared, wanted)
            steps.append(
                _Step(work, prepared, wanted, ranges, -1 if below is None else below.index)
            )
            if below is None:
                break
            below.checkpoint.note_use(below.name)
            work, wanted = below.work, ranges[below.index]
        made = memoryview(b"")
        for height, step in enumerate(reversed(steps)):
            is_top = height == len(steps) - 1
            target = out if is_top else own.block(1 + height % 2, step.wanted.nbytes)
            blocks = []
            for i, source in enumerate(step.ranges):
                block = made if i == step.below else own.block(3 + i, source.nbytes)
                if i != step.below:
                    step.work.read(i, source.start, block)
                blocks.append(block)
            step.work.codec.apply(step.prepared, step.wanted, blocks, target)
            made = target

    def below(self) -> "_Below | None":
        """The first of its inputs that is made by a rule which can be asked for any range."""
        if self._below is None:
            found = (
                _Below(index, checkpoint, name, work)
                for index, (checkpoint, name) in enumerate(self._inputs)
                if isinstance(checkpoint, MadeOfWorks)
                and (work := checkpoint.work_of(name)) is not None
                and work.codec.takes_any_range
            )
            self._below = next(found, False)
        return self._below or None

    def nonfinite(self, span: Range) -> Iterator[tuple[str, int, int]]:
        """By the role of each input, how many NaNs and infinities are in what a span is made of,
        which is read again.

        Of an input that is made by a rule itself, by the roles of what it is made from,
        with `BELOW` between them; what was coded may have any bits, and is not looked into.
        """
        ranges = self.codec.reads(self.prepared(), span)
        for i, (source, each) in enumerate(zip(ranges, self.tensor.inputs, strict=True)):
            block = memoryview(bytearray(source.nbytes))
            self.read(i, source.start, block)
            counts = count_nonfinite(block, each.info.dtype)
            checkpoint, name = self._inputs[i]
            work = checkpoint.made_by(name) if isinstance(checkpoint, MadeOfWorks) else None
            below: list[tuple[str, int, int]] = []
            if any(counts) and work is not None and not work.codec.restores:
                below = [
                    (f"{each.role}{BELOW}{role}", nans, infinities)
                    for role, nans, infinities in work.nonfinite(source)
                    if nans or infinities
                ]
            yield from below or [(each.role, *counts)]

    def finish_span(self, number: int, digest: bytes) -> bool:
        """Keep a span's digest; after the last one let go of the state, and return True."""
        with self._lock:
            self.digests[number] = digest
            self._unfinished -= 1
            if self._unfinished:
                return False
            self._work = replace(self._work, state=None)
            return True

    def forget(self) -> None:
        """Let go of the state; it is made again when it is asked for again."""
        with self._lock:
            self._work = replace(self._work, state=None)
            self._prepared = False

    def drop_cache(self, *, everything: bool) -> None:
        """Give back the page cache of what the tensor was made from: what it did not hold before,
        or `everything`.

        So the same memory serves one tensor after the other, and what others use stays there.
        """
        for checkpoint, name in self._inputs if everything else self._fetched:
            checkpoint.drop_cache(name)


@runtime_checkable
class MadeOfWorks(Protocol):
    """A checkpoint whose tensors are made by rules as they are read."""

    finite: tuple[str, ...]
    """Roles of what it is made from that may hold numbers only in what is published."""

    @property
    def made_from(self) -> Mapping[str, Checkpoint]:
        """What the tensors are made from, by the roles that the rules name."""
        ...

    def made_by(self, name: str) -> TensorWork:
        """What makes a tensor."""
        ...

    def work_of(self, name: str) -> TensorWork | None:
        """The same; None where it has to be read whole, to be checked."""
        ...

    def note_use(self, name: str) -> None:
        """Hear that a tensor is being made."""
        ...


@dataclass(frozen=True, slots=True)
class _Below:
    """An input that is made by a rule."""

    index: int
    checkpoint: MadeOfWorks
    name: str
    work: TensorWork


@dataclass(frozen=True, slots=True)
class _Step:
    """One rule in the making of a span, and the range that it has to make."""

    work: TensorWork
    prepared: Work
    wanted: Range
    ranges: Sequence[Range]
    below: int
    """The input that the step below makes; -1 where there is none."""


def begin(shard: ShardPlan, directory: Path) -> fs.PositionedFile:
    """Create a shard's file at its full size, with its header.

    Raises: DiskFull.
    """
    file = fs.create(directory / shard.name)
    file.reserve(shard.nbytes)
    file.write_from(0, memoryview(shard.header))
    return file


def fill(
    shard: ShardPlan,
    inputs: Mapping[str, Checkpoint],
    file: fs.PositionedFile,
    buffers: Sequence[Buffers],
    advance: Advance,
    countdown: Countdown,
    follow: Follow,
    *,
    look: Look,
    drop_cache: bool,
) -> dict[str, str]:
    """Write a shard's data, one worker a set of buffers; returns tensor digests by name.

    `look` sees each span before it is written.
    Memory: one span of output and what it is made from, a worker.
    """
    works = [TensorWork(tensor, inputs) for tensor in shard.tensors]

    def worker(own: Buffers) -> Callable[[tuple[TensorWork, int]], None]:
        def make_span(task: tuple[TensorWork, int]) -> None:
            work, number = task
            span = span_range(number, work.output.nbytes)
            out = own.block(0, span.nbytes)
            work.make(span, own, out)
            look(work, span, out)
            offset = shard.places[work.output.name].offset + span.start
            file.write_from(offset, out)
            file.start_writeback(offset, span.nbytes)
            digest = span_digest(out)
            if work.finish_span(number, digest):
                work.drop_cache(everything=drop_cache)
                countdown.finish(work.tensor)
            advance(span.nbytes)
            follow(Piece(work.output.name, offset, span.nbytes, digest), own)

        return make_span

    def tasks() -> Iterator[tuple[TensorWork, int]]:
        for work in works:
            countdown.begin(work.tensor)
            yield from work.spans()

    run_tasks(tasks(), [worker(own) for own in buffers])
    return {work.output.name: tensor_digest(work.output, work.digests) for work in works}


def remake(
    tensors: Iterable[TensorPlan],
    inputs: Mapping[str, Checkpoint],
    buffers: Sequence[Buffers],
    advance: Advance = lambda _: None,
) -> dict[str, str]:
    """The digests, by name, of what these tensors would be if they were made now; writes nothing.

    Memory: as `fill`.
    """
    works = {tensor.output.name: TensorWork(tensor, inputs) for tensor in tensors}

    def make(info: TensorInfo, span: Range, own: Buffers) -> None:
        work, out = works[info.name], own.block(0, span.nbytes)
        work.make(span, own, out)
        work.finish_span(span.start // SPAN_NBYTES, span_digest(out))
        advance(span.nbytes)

    map_spans((work.output for work in works.values()), buffers, make)
    return {name: tensor_digest(work.output, work.digests) for name, work in works.items()}


def read_back(
    path: Path, shard: ShardPlan, buffers: Sequence[Buffers], advance: Advance
) -> dict[str, str]:
    """Open a written shard through the reader and digest its tensors again, by name.

    Raises: VerificationFailed, as `reopen`.
    """
    file = reopen(path, shard)

    def read(name: str, start: int, buffer: memoryview) -> None:
        file.read_into(shard.places[name].offset + start, buffer)

    return digest_tensors((tensor.output for tensor in shard.tensors), read, buffers, advance)


def reopen(path: Path, shard: ShardPlan) -> fs.PositionedFile:
    """Reopen a written shard as a reader would; check its size and header.

    Raises: VerificationFailed, if its header, or a file's size, is not the planned one.
    """
    file = fs.open_for_reading(path)
    if file.size != shard.nbytes:
        raise VerificationFailed(file=path, reason=f"it has {file.size} bytes")
    if not isinstance(shard, FilePlan):
        try:
            _, raw = read_header(file)
        except DamagedInput as error:
            raise VerificationFailed(file=path, reason="its header is damaged") from error
        if raw != shard.header:
            raise VerificationFailed(file=path, reason="its header differs")
    return file

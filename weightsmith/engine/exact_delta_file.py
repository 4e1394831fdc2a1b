"""Fill one file of an exact delta: no payload's size is known before it is made.

    the header, its place set aside at the most it can need
    the payloads by name, each a table (its place set aside, its size being known) and the spans

Workers make spans in any order and append them in the tensors' own. So the same inputs give the
same file whatever the number of workers, and no more than a span of each waits in memory.

Before its spans it is found out whether a tensor is its base plus a product of thin factors. That
is work for one worker, so it is done for as many tensors ahead as there are workers.
"""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.codecs.exact.kernel import Kernel
from weightsmith.codecs.exact.making import SpanMaker
from weightsmith.codecs.exact.payload import payload_limit
from weightsmith.codecs.low_rank.making import largest_start
from weightsmith.engine.exact_delta_tensor import TensorMaking, base_of
from weightsmith.engine.executors.threads import run_tasks
from weightsmith.engine.spans import Advance, Buffers, span_range
from weightsmith.errors import VerificationFailed
from weightsmith.formats.safetensors_header import layout, widened
from weightsmith.formats.tensors import TensorInfo
from weightsmith.plan.exact_record import TargetFile, TargetTensor
from weightsmith.plan.model import ShardPlan

METADATA: Final = {"format": "weightsmith-delta"}
"""No loader's; transformers refuses a file that names a format it does not know."""


@dataclass(frozen=True, slots=True)
class EncodedFile:
    """What filling a file told."""

    tensors: Mapping[str, TargetTensor]
    """By name, all that the file stands for."""
    base_digests: Mapping[str, str]
    """Of the base's tensors that were read whole, by name."""
    payloads: tuple[TensorInfo, ...]
    """What the file holds; nothing, if the base has it all."""
    coded: bool = False
    """Whether it holds spans that are coded by class."""
    original: TargetFile | None = None
    """The target's file that it stands for; None where tensors are restored and files are not."""

    def to_document(self) -> dict[str, Any]:
        """The same as JSON values, for a receipt."""
        return {
            "tensors": [each.to_document() for each in self.tensors.values()],
            "base_digests": dict(self.base_digests),
            "payloads": [[each.name, each.nbytes] for each in self.payloads],
            "coded": self.coded,
            "original": None if self.original is None else self.original.to_document(),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "EncodedFile":
        """The inverse of `to_document`.

        Raises: KeyError, TypeError, ValueError, if it is no such document.
        """
        tensors = map(TargetTensor.from_document, document["tensors"])
        original = document["original"]
        return cls(
            tensors={each.info.name: each for each in tensors},
            base_digests=dict(document["base_digests"]),
            payloads=tuple(_payload(name, nbytes) for name, nbytes in document["payloads"]),
            coded=bool(document["coded"]),
            original=None if original is None else TargetFile.from_document(original),
        )


def encode_file(
    shard: ShardPlan,
    inputs: Mapping[str, Checkpoint],
    file: fs.PositionedFile,
    seen: dict[str, TargetTensor],
    buffers: Sequence[Buffers],
    advance: Advance,
    *,
    writer: Kernel | None,
    products: Mapping[str, str],
    drop_cache: bool,
) -> EncodedFile:
    """Write the delta of one of the target's files, each span read back and decoded.

    `seen` holds what was made so far, by digest, and is added to: of tensors that are the same, as
    tied ones are, one is stored. `writer` codes spans by class; without one, none are.
    Memory: a span of base, target and payload a worker, and some ten times a span to make it.
    Raises: VerificationFailed, if a span does not decode to the target's.
    """
    works = [TensorMaking(plan, inputs, writer, products) for plan in shard.tensors]
    works.sort(key=lambda work: work.output.name.encode("utf-8"))  # as `layout` orders them
    tail = _Tail(file, _header_nbytes(shard), seen)

    def worker(own: Buffers) -> Callable[[_Task], None]:
        def encode(task: _Task) -> None:
            turn, work, number = task
            if turn is None:
                work.look_for_factors()
                return
            maker = work.make(number, own)
            with tail.turn(turn):
                stored = tail.append(work, number, maker, own)
            if not maker.restores(stored):
                raise VerificationFailed(file=file.path, reason=f"tensor {work.output.name}")
            if drop_cache and number == work.span_count - 1:
                work.drop_cache()
            advance(span_range(number, work.output.nbytes).nbytes)

        def encode_or_stop_all(task: _Task) -> None:
            try:
                encode(task)
            except _StoppedError:
                return  # the worker that failed says why
            except BaseException:
                tail.stop()
                raise

        return encode_or_stop_all

    with _limited(works):
        run_tasks(_tasks(works, len(buffers)), [worker(own) for own in buffers])
    file.reserve(tail.at)
    file.write_from(0, memoryview(header_of(shard, tail.payloads)))
    return EncodedFile(
        tensors={work.output.name: work.made for work in works},
        base_digests=dict(each for work in works for each in work.base_digest()),
        payloads=tuple(tail.payloads),
        coded=any(work.coded for work in works),
    )


def header_of(shard: ShardPlan, payloads: Sequence[TensorInfo]) -> bytes:
    """The first bytes of a shard's file that holds these payloads, filled up with spaces."""
    return widened(layout(payloads, METADATA)[0], _header_nbytes(shard))


def _header_nbytes(shard: ShardPlan) -> int:
    """The most that a shard's header can need, whatever its payloads come to."""
    limits = []
    for tensor in shard.tensors:
        base = base_of(tensor)
        factors = 0 if base is None else largest_start(base, tensor.output)
        limits.append(_payload(tensor.output.name, payload_limit(tensor.output) + factors))
    return len(layout(limits, METADATA)[0])


def _payload(name: str, nbytes: int) -> TensorInfo:
    return TensorInfo(name, "U8", (nbytes,))


def _limited(works: Sequence[TensorMaking]) -> contextlib.AbstractContextManager[None]:
    """BLAS with one thread, where workers are going to look for factors."""
    if not any(work.may_have_factors for work in works):
        return contextlib.nullcontext()
    from weightsmith.codecs.low_rank.one_thread import one_thread

    return one_thread()


_Task = tuple[int | None, TensorMaking, int]
"""A turn, a tensor and a span of it; without a turn, to look for the tensor's factors."""


def _tasks(works: Sequence[TensorMaking], ahead: int) -> Iterator[_Task]:
    """What workers take in order: to look for a tensor's factors, then its spans.

    Nobody waits for factors that no worker has taken on, for these come first.
    """
    turns = itertools.count()
    looks = ((None, work, 0) for work in works if work.may_have_factors)
    yield from itertools.islice(looks, ahead)
    for work in works:
        for number in range(max(work.span_count, 1)):
            yield next(turns), work, number
        if work.may_have_factors:
            yield from itertools.islice(looks, 1)


class _Tail:
    """The growing end of a file, to which spans are appended in order."""

    def __init__(self, file: fs.PositionedFile, start: int, seen: dict[str, TargetTensor]) -> None:
        self.at = start
        self.payloads: list[TensorInfo] = []
        self._file = file
        self._seen = seen
        self._turn = 0
        self._stopped = False
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def turn(self, number: int) -> Iterator[None]:
        """Wait until everything before turn `number` is appended, then hold the end of the file."""
        with self._changed:
            self._changed.wait_for(lambda: self._turn == number or self._stopped)
            if self._stopped:
                raise _StoppedError
            yield
            self._turn += 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Let nobody wait for the turn of a worker that failed."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def append(self, work: TensorMaking, number: int, maker: SpanMaker, own: Buffers) -> memoryview:
        """Write a span's payload and read it back; after the last, finish the tensor."""
        payload = maker.payload
        if number == 0:
            work.start = self.at
            self.at += work.start_nbytes
        self._file.write_from(self.at, memoryview(payload))
        stored = own.block(2, len(payload))
        self._file.read_into(self.at, stored)
        self._file.start_writeback(self.at, len(payload))
        self.at += len(payload)
        work.lengths.append(len(payload))
        work.coded |= maker.is_coded
        if number == len(work.digests) - 1:
            self._finish(work)
        return stored

    def _finish(self, work: TensorMaking) -> None:
        """Put the table before the spans, or take all of it back where it is not needed."""
        name, digest = work.output.name, work.digest()
        tied = self._seen.get(digest)
        base = None if work.base is None else work.base.name
        if work.is_like_base and not any(work.lengths):
            work.made = TargetTensor(work.output, digest, base, None)
        elif tied is not None:
            work.made = replace(tied, info=work.output)
        else:
            rank = work.prediction.rank if work.prediction else 0
            work.made = TargetTensor(work.output, digest, base, name, rank)
            self._file.write_from(work.start, memoryview(work.start_bytes()))
            self.payloads.append(_payload(name, self.at - work.start))
        self._seen.setdefault(digest, work.made)
        work.prediction = None  # its factors are not needed any more
        if work.made.payload != name:
            self.at = work.start


class _StoppedError(Exception):
    """Another worker failed while this one waited for it."""

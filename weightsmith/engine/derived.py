"""A checkpoint that is nowhere written: its tensors are made by rules as they are read."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import (
    MAX_SIDECAR_NBYTES,
    Checkpoint,
    Tensor,
    WeightFile,
)
from weightsmith.checkpoint.content import Content
from weightsmith.checkpoint.digest import (
    SPAN_NBYTES,
    span_count,
    span_digest,
    tensor_digest,
)
from weightsmith.checkpoint.store import LocalStore
from weightsmith.codecs.base import Range
from weightsmith.engine.expected import blamed, raise_fault
from weightsmith.engine.options import default_workers
from weightsmith.engine.shard import TensorWork
from weightsmith.engine.spans import Buffers, map_spans, span_range
from weightsmith.errors import ShardTruncated
from weightsmith.formats.tensors import StoredTensor, TensorInfo
from weightsmith.plan.model import TensorPlan, rules_digest

_KEPT_STATES: Final = 4
"""Tensors whose rules' states are kept, of those that were read last: readers go from tensor to
tensor, some of them on the next already, and come back to no old one.
"""


class Derived(Checkpoint):
    """Tensors by name, each made by a rule from the ranges of `inputs` that it needs.

    Whatever takes a checkpoint takes this one.
    Memory: beside the reader's buffer, what the rule reads for that range, once a thread, and the
    states of the rules of a few tensors.
    """

    def __init__(
        self,
        *,
        label: str,
        directory: Path,
        rules: Iterable[TensorPlan],
        inputs: Mapping[str, Checkpoint],
        sidecars: Mapping[str, Content],
        notes: tuple[str, ...] = (),
        finite: tuple[str, ...] = (),
    ) -> None:
        """`inputs` by the roles that the rules name; `sidecars` with their content; `finite` are
        the roles of inputs that may hold numbers only in what is published.
        """
        self._rules = {rule.output.name: rule for rule in rules}
        self._works = {name: TensorWork(rule, inputs) for name, rule in self._rules.items()}
        self._inputs = inputs
        self.finite = finite
        self._contents = sidecars
        self.leaves: tuple[Checkpoint, ...] = tuple(
            dict.fromkeys(
                leaf
                for each in inputs.values()
                for leaf in (each.leaves if isinstance(each, Derived) else (each,))
            )
        )
        """The checkpoints whose files are read in the end, however many rules lie between."""
        self._own = threading.local()
        self._recent: OrderedDict[str, None] = OrderedDict()
        self._noting = threading.Lock()
        super().__init__(
            label=label,
            directory=directory,
            store=LocalStore(directory),
            files=tuple(file for leaf in self.leaves for file in leaf.files),
            tensors={n: Tensor(StoredTensor(r.output, 0), "") for n, r in self._rules.items()},
            sidecars=tuple(sorted(sidecars)),
            notes=(*(note for leaf in self.leaves for note in leaf.notes), *notes),
        )

    @property
    def made_from(self) -> Mapping[str, Checkpoint]:
        """What the tensors are made from, by the roles that the rules name."""
        return self._inputs

    @property
    def is_pinned(self) -> bool:
        """Whether all that is read in the end is."""
        return all(leaf.is_pinned for leaf in self.leaves)

    @property
    def plans(self) -> tuple[TensorPlan, ...]:
        """The rules, in the order of the tensors."""
        return tuple(self._rules.values())

    @property
    def rules(self) -> str:
        """The digest of the rules."""
        return rules_digest(self._rules.values())

    def renamed(self, names: Mapping[str, str], *notes: str) -> Self:
        """The same tensors under other names, made by the same rules."""
        alike = super().renamed(names, *notes)
        rules = {
            names.get(name, name): replace(
                rule, output=replace(rule.output, name=names.get(name, name))
            )
            for name, rule in self._rules.items()
            if names.get(name, name)
        }
        works = {name: TensorWork(rule, self._inputs) for name, rule in rules.items()}
        vars(alike).update(_rules=rules, _works=works, _recent=OrderedDict())
        return alike

    def read_sidecar(self, name: str) -> bytes:
        """The content that was given, or that of a file beside the weights, all of it."""
        content = self._contents.get(name)
        return super().read_sidecar(name) if content is None else content.read(MAX_SIDECAR_NBYTES)

    def sidecar(self, name: str) -> Content:
        """The content that was given, or a file beside the weights."""
        content = self._contents.get(name)
        return super().sidecar(name) if content is None else content

    def read_into(self, name: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with bytes of a tensor, made as they are asked for; for any thread.

        No rule is asked for a range that lies in two spans.
        """
        stop = start + len(buffer)
        for number in range(start // SPAN_NBYTES, span_count(stop)):
            whole = span_range(number, stop)
            part = Range(max(whole.start, start), whole.stop)
            out = buffer[part.start - start : part.stop - start]
            self._works[name].make(part, self._buffers(), out)
        self.note_use(name)

    def read_whole(self, name: str) -> bytearray:
        """All bytes of a tensor, its spans made by several threads.

        Raises: as `read_into`.
        """
        info = self.tensors[name].info
        if span_count(info.nbytes) < 2 or self.sequential:
            return super().read_whole(name)
        buffer = bytearray(info.nbytes)
        view = memoryview(buffer)

        def make(_: TensorInfo, span: Range, __: Buffers) -> None:
            self.read_into(name, span.start, view[span.start : span.stop])

        map_spans([info], [Buffers() for _ in range(default_workers())], make)
        return buffer

    def made_by(self, name: str) -> TensorWork:
        """What makes a tensor."""
        return self._works[name]

    def work_of(self, name: str) -> TensorWork | None:
        """What makes a tensor, for rules that are made of it."""
        return self._works[name]

    def note_use(self, name: str) -> None:
        """Keep the state of a tensor's rule, and let go of the one that was used least lately."""
        with self._noting:
            self._recent[name] = None
            self._recent.move_to_end(name)
            old = self._recent.popitem(last=False)[0] if len(self._recent) > _KEPT_STATES else None
        if old is not None:
            # Whoever is at work with it has its own reference.
            self._works[old].forget()

    @property
    def held_nbytes(self) -> int:
        """The largest states that its rules and those of its inputs keep."""
        states = sorted(rule.rule.state_nbytes(rule.work) for rule in self._rules.values())
        below = sum(each.held_nbytes for each in self._inputs.values())
        return sum(states[-_KEPT_STATES:]) + below

    @property
    def sequential(self) -> bool:
        """As soon as one input is."""
        return any(leaf.sequential for leaf in self.leaves)

    def files_of(self, name: str) -> frozenset[str]:
        """Names of the files that a tensor's bytes come from."""
        return frozenset().union(*(leaf.files_of(each) for leaf, each in self._origins(name)))

    def is_cached(self, name: str) -> bool:
        """Whether the page cache holds all that a tensor is made from."""
        return all(leaf.is_cached(each) for leaf, each in self._origins(name))

    def drop_cache(self, name: str) -> None:
        """Give the page cache of all that a tensor was made from back to the system."""
        for leaf, each in self._origins(name):
            leaf.drop_cache(each)

    def _origins(self, name: str) -> list[tuple[Checkpoint, str]]:
        """The tensors in files that a tensor is made from in the end."""
        found: list[tuple[Checkpoint, str]] = []
        left: list[tuple[Checkpoint, str]] = [(self, name)]
        while left:
            checkpoint, each = left.pop()
            if isinstance(checkpoint, Derived):
                left += [
                    (checkpoint._inputs[source.role], source.info.name)  # noqa: SLF001
                    for source in checkpoint._rules[each].inputs  # noqa: SLF001
                ]
            else:
                found.append((checkpoint, each))
        return found

    def changed_files(self) -> list[str]:
        """Paths of weight files of any input that are no longer what they were when opened."""
        return [path for leaf in self.leaves for path in leaf.changed_files()]

    def touched_files(self) -> list[WeightFile]:
        """Weight files of any input of which only the time of change is another."""
        return [file for leaf in self.leaves for file in leaf.touched_files()]

    def accept(self, file: WeightFile) -> None:
        """Take a weight file as it is now, in the input that it is one of."""
        super().accept(file)
        for each in self._holders(file.name):
            if file in each.touched_files():
                each.accept(file)

    def disk_nbytes(self, file: str) -> int:
        """Bytes of disk that reading a file takes until it is released; 0 where it is here."""
        return sum(each.disk_nbytes(file) for each in self._holders(file))

    def is_far(self, file: str) -> bool:
        """Whether reading a little of a file is a request to another machine."""
        return any(each.is_far(file) for each in self._holders(file))

    def expect(self, file: str) -> None:
        """Say that a file will be read soon."""
        for each in self._holders(file):
            each.expect(file)

    def release(self, file: str) -> None:
        """Say that nothing more will be read from a file."""
        for each in self._holders(file):
            each.release(file)

    def _holders(self, file: str) -> list[Checkpoint]:
        """The inputs that have a file of this name."""
        return [leaf for leaf in self.leaves if file in {f.name for f in leaf.files}]

    def _buffers(self) -> Buffers:
        own: Buffers | None = getattr(self._own, "buffers", None)
        if own is None:
            own = self._own.buffers = Buffers()
        return own


class Proved(Derived):
    """A derived checkpoint that is read once, every tensor held against the digest that its rule
    promises, if it promises one.
    """

    def work_of(self, name: str) -> None:
        """None: its tensors must be read by `read_into`, which checks them."""

    def read_into(self, name: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with bytes of a tensor; a span of which a part is asked for is made whole.

        Raises: WrongBase, DeltaInvalid, when all of a tensor was made, and is not what it must be.
        """
        work, own = self._works[name], self._buffers()
        stop = start + len(buffer)
        for number in range(start // SPAN_NBYTES, span_count(stop)):
            span = span_range(number, work.output.nbytes)
            part = Range(max(span.start, start), min(span.stop, stop))
            wanted = buffer[part.start - start : part.stop - start]
            whole = wanted if part == span else own.block(0, span.nbytes)
            with blamed([work.tensor], self._inputs, [Buffers()]):
                work.make(span, own, whole)
            if part != span:
                wanted[:] = whole[part.start - span.start : part.stop - span.start]
            work.digests[number] = span_digest(whole)
        promised = bool(work.tensor.digest) and all(work.digests)
        if promised and tensor_digest(work.output, work.digests) != work.tensor.digest:
            raise_fault([work.tensor], self._inputs, [Buffers()])


class DerivedFile(fs.Readable):
    """A file of a derived checkpoint of whole files, to be read before it is written anywhere."""

    def __init__(self, checkpoint: Checkpoint, name: str) -> None:
        """Name the file; nothing is read."""
        self.path = checkpoint.directory / name
        self._checkpoint = checkpoint
        self._name = name

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self._checkpoint.tensors[self._name].info.nbytes

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`."""
        if offset + len(buffer) > self.size:
            raise ShardTruncated(file=self.path, reason=f"it ends at byte {self.size}")
        self._checkpoint.read_into(self._name, offset, buffer)

"""Files that each process of a training run wrote of its own part: FSDP1, FSDP2, tensor parallel.

A tensor in such a file is a DTensor, whose spec says which box of the whole it is; a ShardedTensor,
which says where its parts begin; or a plain tensor, which all processes hold.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from weightsmith.checkpoint.checkpoint import WeightFile
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.checkpoint.pieces import Gathered, Piece, Pieced
from weightsmith.checkpoint.store import LocalStore
from weightsmith.errors import ModelUnnamed, PartitionsInvalid, TrainingMixed
from weightsmith.formats.pickle_names import DTENSOR
from weightsmith.formats.tensors import StoredTensor, TensorInfo
from weightsmith.formats.torch_pickle import Record, View, Wrapped
from weightsmith.formats.torch_zip import TorchFile, find_entries
from weightsmith.sources.training.complete import require_all
from weightsmith.sources.training.placement import PlacementError, are_counts, place, whole_of
from weightsmith.units import counted

_FLAT: Final = "_flat_param"
"""What FSDP1 names the parameters of a unit that it keeps as one."""
_COMPARED_NBYTES: Final = 4096
"""How much of what several processes hold is compared; two steps differ in nearly every weight."""
_INTEGERS: Final = ("I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "BOOL")


@dataclass(slots=True)
class _Tensor:
    """What the files hold of one tensor."""

    whole: TensorInfo
    plain: bool
    """Whether each process holds all of it."""
    boxes: dict[tuple[tuple[int, ...], tuple[int, ...]], Piece] = field(default_factory=dict)
    """By start and shape, from the first process that holds it."""


def open_ranks(
    directory: Path, names: Mapping[int, str], label: str, world: int | None
) -> Gathered:
    """The tensors of which each process wrote a part; `names` by the processes' numbers.

    `world` is how many processes there were, where the names of the files tell.
    Raises: RankMissing, TrainingMixed, ModelUnnamed; PartitionsInvalid, PartsDoNotFit; what opening
    a torch file raises.
    """
    return _Ranks(directory, names, label, world).open()


class _Ranks:
    def __init__(
        self, directory: Path, names: Mapping[int, str], label: str, world: int | None
    ) -> None:
        self._directory, self._names, self._label, self._world = directory, names, label, world
        self._store = LocalStore(directory)
        self._tensors: dict[str, _Tensor] = {}
        self._notes: list[str] = []

    def open(self) -> Gathered:
        if self._world is not None:
            self._require_ranks(self._world)
        files: list[WeightFile] = []
        left: tuple[str, ...] = ()
        first: set[str] = set()
        for rank, name in sorted(self._names.items()):
            opened = TorchFile(self._store.open(name))
            entries, left = find_entries(opened.content, opened.path)
            digest = bytes_digest(opened.directory)
            files.append(WeightFile(name, *self._store.identity(name), digest))
            if not first:
                first = set(entries)
            elif first != set(entries):
                other = sorted(first ^ set(entries))
                raise self._mixed(f"{other[0]} is in some of the files and not in others")
            with self._sound(name):
                for tensor, entry in entries.items():
                    self._add(opened, name, tensor, entry, rank)
        if left:
            self._notes.append("beside the model, not used: " + ", ".join(left))
        held = {n: Pieced.of(each.whole, each.boxes.values()) for n, each in self._tensors.items()}
        notes = (f"{counted(len(self._names), 'part')}, one a process, put together", *self._notes)
        return Gathered(
            label=self._label,
            directory=self._directory,
            files=tuple(files),
            tensors=held,
            notes=notes,
        )

    def _add(
        self, opened: TorchFile, file: str, name: str, entry: View | Wrapped, rank: int
    ) -> None:
        """What one file holds of one tensor."""
        if name.rpartition(".")[2] == _FLAT:
            raise ModelUnnamed(source=self._label, name=name)
        if isinstance(entry, View):
            stored = opened.locate(name, entry)
            self._take(stored.info, file, stored, (0,) * len(stored.info.shape), plain=True)
            return
        whole = whole_of(name, entry)
        if entry.kind == DTENSOR:
            placed = place(entry, whole)
            self._require_world(placed.processes)
            stored = opened.locate(name, placed.view)
            if stored.info.shape != placed.shape and stored.info.numel + math.prod(placed.shape):
                reason = f"holds {list(stored.info.shape)} of {name}, its place {rank} is"
                raise PlacementError(f"{reason} {list(placed.shape)}")
            self._take(whole, file, stored, placed.start)
            return
        self._known(whole, file)
        self._require_world(_processes(entry))
        for view, start, size in _shards(entry, whole):
            stored = opened.locate(name, view)
            if stored.info.shape != size:
                raise PlacementError(f"{name} is {list(stored.info.shape)}, not {list(size)}")
            self._take(whole, file, stored, start)

    def _known(self, whole: TensorInfo, file: str, *, plain: bool = False) -> _Tensor:
        """What is known of a tensor, which all files say the same of.

        Raises: TrainingMixed.
        """
        known = self._tensors.setdefault(whole.name, _Tensor(whole, plain))
        if (known.whole, known.plain) != (whole, plain):
            reason = f"{whole.name} is {known.whole} in one file and {whole} in {file}"
            raise self._mixed(reason)
        return known

    def _take(
        self,
        whole: TensorInfo,
        file: str,
        stored: StoredTensor,
        start: tuple[int, ...],
        *,
        plain: bool = False,
    ) -> None:
        """Keep a part, unless another process holds the same.

        Raises: TrainingMixed, if what should be the same is not.
        """
        known = self._known(whole, file, plain=plain)
        same = known.boxes.setdefault((start, stored.info.shape), Piece(file, stored, start))
        if same.file != file and self._beginning(same.file, same.stored) != self._beginning(
            file, stored
        ):
            reason = f"{whole.name} differs between {same.file} and {file}, which hold the same"
            if not plain or whole.dtype in _INTEGERS:
                raise self._mixed(reason)
            note = f"{whole.name} differs from process to process: that of {same.file} is taken"
            if note not in self._notes:
                self._notes.append(note)

    def _beginning(self, file: str, stored: StoredTensor) -> bytes:
        """The first bytes of a tensor; none of one with strides, which torch seldom writes."""
        if stored.strides is not None:
            return b""
        nbytes = min(stored.info.nbytes, _COMPARED_NBYTES)
        return self._store.open(file).read(stored.offset, nbytes)

    def _require_world(self, processes: int) -> None:
        """A mesh may have fewer processes than the run had, never more."""
        if processes > len(self._names):
            if self._world is not None:
                raise self._mixed(f"tensors were cut for {processes} processes, not {self._world}")
            self._require_ranks(processes)

    def _require_ranks(self, world: int) -> None:
        """Raises: RankMissing."""
        require_all(range(world), self._names, "process {} is missing", self._label)

    def _mixed(self, reason: str) -> TrainingMixed:
        return TrainingMixed(source=self._label, reason=reason)

    @contextlib.contextmanager
    def _sound(self, file: str) -> Iterator[None]:
        try:
            yield
        except PlacementError as error:
            raise PartitionsInvalid(file=self._directory / file, reason=error) from error


def _processes(wrapped: Wrapped) -> int:
    """How many processes a ShardedTensor was made for, as far as it says."""
    match wrapped.state:
        case (_, _, Record() as group, *_):
            count = group.get("global_world_size")
            return count if type(count) is int else 0
    return 0


def _shards(
    wrapped: Wrapped, whole: TensorInfo
) -> Iterator[tuple[View, tuple[int, ...], tuple[int, ...]]]:
    """Tensor, start and shape of each part of a ShardedTensor that a file holds, maybe none.

    Raises: PlacementError.
    """
    match wrapped.state:
        case (list() as shards, *_):
            pass
        case _:
            raise PlacementError(f"{whole.name} has no list of parts")
    for shard in shards:
        view = shard.get("tensor") if isinstance(shard, Record) else None
        about = shard.get("metadata") if isinstance(shard, Record) else None
        start, size = (
            (about.get("shard_offsets"), about.get("shard_sizes"))
            if isinstance(about, Record)
            else (None, None)
        )
        if not isinstance(view, View) or not are_counts(start) or not are_counts(size):
            raise PlacementError(f"a part of {whole.name} does not say where it belongs")
        if not len(start) == len(size) == len(whole.shape):
            raise PlacementError(f"a part of {whole.name} has not as many dimensions")
        yield view, tuple(start), tuple(size)

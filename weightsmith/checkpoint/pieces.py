"""Tensors whose bytes lie in pieces, each a box of the whole, in one file or many."""

import itertools
import json
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from weightsmith.checkpoint.checkpoint import Checkpoint, Tensor, WeightFile
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.checkpoint.store import LocalStore
from weightsmith.checkpoint.strided import read_strided
from weightsmith.errors import PartsDoNotFit
from weightsmith.formats.tensors import StoredTensor, TensorInfo, dtype_bits

Read = Callable[[int, memoryview], None]
"""``read(first, buffer)`` fills `buffer` with a piece's elements, counted in row-major order."""

_UNSIGNED: Final = {1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "V16"}
"""NumPy types that move elements of a width without looking at them."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A box of a tensor, stored by itself in one file."""

    file: str
    stored: StoredTensor
    """Where its bytes lie; its shape is the box's."""
    start: tuple[int, ...]
    """The index in the whole tensor of its first element. Of a piece with one dimension, which a
    tensor of any shape may have, one number: elements before it in row-major order.
    """


@dataclass(frozen=True, slots=True)
class Pieced(Tensor):
    """A tensor in pieces, which cover every element once."""

    pieces: tuple[Piece, ...] = ()

    @classmethod
    def of(cls, info: TensorInfo, pieces: Iterable[Piece]) -> "Pieced":
        """A tensor of pieces that are known to fit; those without elements are left out.

        Raises: PartsDoNotFit, if an element is in no piece or in two, or one outside the tensor.
        """
        held = tuple(piece for piece in pieces if piece.stored.info.numel)
        _require_tiled(info, held)
        return cls(StoredTensor(info, 0), "", tuple(sorted(held, key=lambda piece: piece.start)))

    @property
    def place(self) -> tuple[object, ...]:
        """Where its bytes lie: tensors of one place are tied."""
        where = tuple(
            (piece.file, piece.stored.offset, piece.stored.strides, piece.start)
            for piece in self.pieces
        )
        return where, self.info.dtype, self.info.shape


class Gathered(Checkpoint):
    """Tensors whose pieces are put together as they are read.

    Memory: the part of one piece that covers what is read, where rows are cut; once a thread.
    """

    def __init__(
        self,
        *,
        label: str,
        directory: Path,
        files: tuple[WeightFile, ...],
        tensors: Mapping[str, Pieced],
        notes: tuple[str, ...],
    ) -> None:
        """`tensors` by name, their pieces in `files`, whose names are paths in `directory`."""
        super().__init__(
            label=label,
            directory=directory,
            store=LocalStore(directory),
            files=files,
            tensors=tensors,
            sidecars=(),
            notes=notes,
        )
        self._own = threading.local()

    @property
    def rules(self) -> str:
        """The digest of which piece lies where."""
        document = [
            [name, info.dtype, info.shape, [_piece_document(piece) for piece in pieces]]
            for name, info, pieces in self._pieced()
        ]
        return bytes_digest(json.dumps(document).encode())

    def read_into(self, name: str, start: int, buffer: memoryview) -> None:
        """Fill `buffer` with whole elements of a tensor from its byte `start`; for any thread.

        Raises: ShardTruncated, SourceUnreadable.
        """
        tensor = self.tensors[name]
        itemsize = dtype_bits(tensor.info.dtype) // 8
        first, stop = start // itemsize, (start + len(buffer)) // itemsize
        for piece in _pieces(tensor):
            box = _Box.of(tensor.info.shape, piece)
            low, high = box.bounds
            if low < stop and first < high:
                read = self._reader(piece, itemsize)
                _copy(box, 0, first, stop, read, buffer, itemsize, self._scratch)

    def _has_header(self, file: WeightFile) -> bool:  # noqa: ARG002
        """Taken to be so: its kinds say where pieces lie each in a way of its own."""
        return True

    def files_of(self, name: str) -> frozenset[str]:
        """Names of the files that a tensor's pieces lie in."""
        return frozenset(piece.file for piece in _pieces(self.tensors[name]))

    def is_cached(self, name: str) -> bool:
        """Whether the page cache held a tensor's bytes when it was first asked about any."""
        with self._asking:
            if not self._cached:
                self._cached[""] = {
                    other
                    for other, _, pieces in self._pieced()
                    if all(
                        self._store.open(p.file).is_cached(p.stored.offset, p.stored.info.nbytes)
                        for p in pieces
                    )
                }
            return name in self._cached[""]

    def drop_cache(self, name: str) -> None:
        """Give the page cache of a tensor's bytes back to the system."""
        for piece in _pieces(self.tensors[name]):
            file = self._store.open(piece.file)
            file.drop_cache(piece.stored.offset, piece.stored.info.nbytes)

    def _pieced(self) -> Iterator[tuple[str, TensorInfo, tuple[Piece, ...]]]:
        return ((name, each.info, _pieces(each)) for name, each in self.tensors.items())

    def _reader(self, piece: Piece, itemsize: int) -> Read:
        file = self._store.open(piece.file)

        def read(first: int, buffer: memoryview) -> None:
            if piece.stored.strides is None:
                file.read_into(piece.stored.offset + first * itemsize, buffer)
            else:
                read_strided(file, piece.stored, first * itemsize, buffer)

        return read

    def _scratch(self, nbytes: int) -> memoryview:
        """This thread's own memory."""
        block: bytearray = getattr(self._own, "block", bytearray())
        if len(block) < nbytes:
            block = self._own.block = bytearray(nbytes)
        return memoryview(block)[:nbytes]


@dataclass(frozen=True, slots=True)
class _Box:
    """Where a piece lies in its tensor, in as few dimensions as tell it."""

    whole: tuple[int, ...]
    start: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, shape: tuple[int, ...], piece: Piece) -> "_Box":
        whole, start, box = _axes(shape, piece)
        while len(whole) > 1 and box[-1] == whole[-1]:
            width = whole[-1]
            whole = (*whole[:-2], whole[-2] * width)
            start = (*start[:-2], start[-2] * width)
            box = (*box[:-2], box[-2] * width)
        while len(whole) > 1 and whole[0] == 1:
            whole, start, box = whole[1:], start[1:], box[1:]
        return cls(whole, start, box)

    @property
    def bounds(self) -> tuple[int, int]:
        """Before its first element and behind its last one, in the whole's row-major order."""
        low = high = 0
        for whole, start, size in zip(self.whole, self.start, self.shape, strict=True):
            low, high = low * whole + start, high * whole + start + size - 1
        return low, high + 1


def _axes(
    shape: tuple[int, ...], piece: Piece
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Sizes of the whole, start and sizes of the piece, in the same dimensions; at least one."""
    box = piece.stored.info.shape
    if len(box) != len(shape) or not shape:
        return (math.prod(shape),), piece.start or (0,), (math.prod(box),)
    return shape, piece.start, box


def _copy(
    box: _Box,
    before: int,
    first: int,
    stop: int,
    read: Read,
    out: memoryview,
    itemsize: int,
    scratch: Callable[[int], memoryview],
) -> None:
    """Put what a box has of elements `first` to `stop` of its whole into `out`.

    The box's own elements begin `before` elements into its piece.
    """
    origin, size = box.start[0], box.shape[0]
    if len(box.whole) == 1:
        low, high = max(first, origin), min(stop, origin + size)
        if low < high:
            part = out[(low - first) * itemsize : (high - first) * itemsize]
            read(before + low - origin, part)
        return
    inner = _Box(box.whole[1:], box.start[1:], box.shape[1:])
    row, width = math.prod(inner.whole), math.prod(inner.shape)
    rows = range(max(first // row, origin), min(-(-stop // row), origin + size))
    whole = range(-(-first // row), stop // row)  # rows that lie in the range from end to end
    bulk = range(max(rows.start, whole.start), min(rows.stop, whole.stop))
    if len(inner.whole) == 1 and len(bulk) > 1:
        block = scratch(len(bulk) * width * itemsize)
        read(before + (bulk.start - origin) * width, block)
        part = out[(bulk.start * row - first) * itemsize : (bulk.stop * row - first) * itemsize]
        _place(block, part, row, inner.start[0], width, itemsize)
        rest = [number for number in rows if number not in bulk]
    else:
        rest = list(rows)
    for number in rest:
        low, high = max(first, number * row), min(stop, (number + 1) * row)
        part = out[(low - first) * itemsize : (high - first) * itemsize]
        skipped = before + (number - origin) * width
        _copy(
            inner, skipped, low - number * row, high - number * row, read, part, itemsize, scratch
        )


def _place(
    block: memoryview, out: memoryview, row: int, column: int, width: int, itemsize: int
) -> None:
    """Put rows of `width` elements into `out`, whose rows have `row`, from `column` on."""
    import numpy as np

    unit = np.dtype(_UNSIGNED[itemsize])
    target: np.ndarray = np.frombuffer(out, unit).reshape(-1, row)
    target[:, column : column + width] = np.frombuffer(block, unit).reshape(-1, width)


def _pieces(tensor: Tensor) -> tuple[Piece, ...]:
    return tensor.pieces if isinstance(tensor, Pieced) else ()


def _piece_document(piece: Piece) -> list[object]:
    stored = piece.stored
    return [piece.file, stored.offset, stored.strides, stored.info.shape, piece.start]


def _require_tiled(info: TensorInfo, pieces: tuple[Piece, ...]) -> None:
    """Raises: PartsDoNotFit, unless the pieces cover every element of the tensor once."""

    def unfit(reason: str) -> PartsDoNotFit:
        return PartsDoNotFit(name=info.name, reason=reason)

    boxes: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for piece in pieces:
        if piece.stored.info.dtype != info.dtype:
            raise unfit(f"it is {info.dtype}, and {piece.stored.info.dtype} in {piece.file}")
        whole, start, shape = _axes(info.shape, piece)
        ends = [begin + size for begin, size in zip(start, shape, strict=True)]
        if any(begin < 0 for begin in start) or any(
            e > w for e, w in zip(ends, whole, strict=True)
        ):
            raise unfit(f"what {piece.file} holds of it reaches out of {list(info.shape)}")
        boxes.append((start, shape))
    held = sum(math.prod(shape) for _, shape in boxes)
    if held < info.numel:
        raise unfit(f"the files hold {held} of its {info.numel} elements")
    if held > info.numel or not _are_apart(boxes, 0):
        raise unfit("elements of it lie in two files")


def _are_apart(boxes: list[tuple[tuple[int, ...], tuple[int, ...]]], axis: int) -> bool:
    """Whether no two boxes share an element; boxes that differ in no earlier dimension."""
    if len(boxes) < 2:
        return True
    if axis == len(boxes[0][0]):
        return False
    groups: dict[tuple[int, int], list[tuple[tuple[int, ...], tuple[int, ...]]]] = {}
    for start, shape in boxes:
        groups.setdefault((start[axis], start[axis] + shape[axis]), []).append((start, shape))
    edges = sorted(groups)
    if all(left[1] <= right[0] for left, right in itertools.pairwise(edges)):
        return all(_are_apart(group, axis + 1) for group in groups.values())
    return not any(
        all(a[i] < b[i] + size_b[i] and b[i] < a[i] + size_a[i] for i in range(len(a)))
        for number, (a, size_a) in enumerate(boxes)
        for b, size_b in boxes[:number]
    )

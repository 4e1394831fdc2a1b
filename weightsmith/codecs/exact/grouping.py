"""Order a span's elements so that those whose base has the same exponent stand together.

How far a weight moves, in units in the last place, depends on its exponent: in a group of one
exponent the distances have one spread, and compress well. Encoder and decoder know the base, so the
order costs nothing to store but one number, the exponent of the first group.

The order, which is part of the format: an element's class is how far its base's exponent is below
that ceiling, from 0 to 7. A span's elements are cut into blocks of `BLOCK`, a block into pairs of
neighbours. In each block the pairs are put in the order of (class of the second, class of the
first), equal ones as they stood. The stream is then, for each class and within it for each block,
the first elements of that class in this order, then the second elements of that class. The last of
an odd number of elements ends the stream.

Pairs, because the number of keys is what a sort costs: a stable sort of 8-bit keys is a radix sort.
Blocks, because they stay in the processor's cache. The stream is put together plane by plane, and
never as numbers: that would be one more pass over memory each way.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from weightsmith.codecs.elements import Bits, Exponents
from weightsmith.codecs.exact.planes import Plane, merge, split

BLOCK: Final = 1 << 18
"""Elements in a block."""

_CLASSES: Final = 8
_CLASS_BITS: Final = 3
_KEYS: Final = np.arange(_CLASSES**2, dtype=np.uint8)
_PAIR: Final = {1: "<u2", 2: "<u4", 4: "<u8"}
"""A dtype as wide as two elements of this width, to move pairs as one."""
_SAMPLED: Final = 64
"""How many neighbours are sampled of each stretch of the square of this number of elements.
Neighbours, because they share lines of the processor's cache.
"""

Run = list[int]
"""Where a run of elements of one class starts and stops."""


def ceiling_of(base: Bits, exponents: Exponents) -> int:
    """The exponent that about one element in a hundred is above."""
    stretch = _SAMPLED**2
    if count := len(base) // stretch:
        base = base[: count * stretch].reshape(count, stretch)[:, :_SAMPLED].ravel()
    found = np.cumsum(np.bincount(_exponents(base, exponents)))
    return int(np.searchsorted(found, 0.99 * found[-1]))


def _exponents(base: Bits, exponents: Exponents) -> Plane:
    found = np.empty(len(base), np.uint8)
    np.right_shift(base, exponents.shift, out=found, casting="unsafe")
    found &= exponents.mask
    return found


class Grouping:
    """The order of one span, worked out from its base."""

    def __init__(self, base: Bits, exponents: Exponents, ceiling: int) -> None:
        """`ceiling` is the exponent of the first class; what is above it counts as it.

        Memory: four bytes an element.
        """
        self.ceiling = ceiling
        self._paired = len(base) // 2 * 2
        starts = range(0, self._paired, BLOCK)
        self.blocks = [slice(start, min(start + BLOCK, self._paired)) for start in starts]
        """Where each block stands in the span; the last of an odd number is a block of its own."""
        self._orders: list[npt.NDArray[np.intp]] = []
        """By block, its pairs in their order."""
        edges = np.empty((len(self.blocks), _KEYS.size + 1), np.intp)
        floor = max(ceiling - _CLASSES + 1, 0)
        for block, row in zip(self.blocks, edges, strict=True):
            classes = _exponents(base[block], exponents)
            np.clip(classes, floor, ceiling, out=classes)
            np.subtract(ceiling, classes, out=classes)
            both = classes.view("<u2")
            keys = (both | both >> (8 - _CLASS_BITS)).astype(np.uint8)
            order = np.argsort(keys, kind="stable")
            self._orders.append(order)
            row[:-1] = np.searchsorted(keys, _KEYS, sorter=order)
            row[-1] = len(keys)
        if self._paired < len(base):
            self.blocks.append(slice(self._paired, len(base)))
        self._runs = _Runs(edges)

    def gather(self, blocks: Iterable[Bits]) -> list[Plane]:
        """The stream's planes, from the elements of each of `self.blocks`."""
        halves: list[list[Plane]] = []
        for number, elements in enumerate(blocks):
            if number == len(self._orders):
                halves.append(split(elements))
                break
            pairs = elements.view(_PAIR[elements.itemsize])
            ordered = split(np.take(pairs, self._orders[number], mode="clip"))
            halves += [ordered[elements.itemsize :], ordered[: elements.itemsize]]
        runs = self._runs.of_blocks()
        if len(halves) > 2 * len(self._orders):
            runs.append([len(halves) - 1, 0, 1])
        planes = []
        for plane in zip(*halves, strict=True):
            parts = [half.data for half in plane]
            stream = b"".join([parts[number][start:stop] for number, start, stop in runs])
            planes.append(np.frombuffer(stream, np.uint8))
        return planes

    def scatter(self, planes: Sequence[Plane | None], dtype: npt.DTypeLike) -> Iterator[Bits]:
        """The elements of each of `self.blocks`, from the stream's planes."""
        parts = [None if plane is None else plane.data for plane in planes]
        pair = _PAIR[np.dtype(dtype).itemsize]
        for number, order in enumerate(self._orders):
            first, second = self._runs.of_stream(number)
            ordered = [_joined(plane, runs) for runs in (second, first) for plane in parts]
            elements = np.empty(2 * len(order), dtype)
            elements.view(pair)[order] = merge(ordered, len(order), pair)
            yield elements
        if len(self.blocks) > len(self._orders):
            yield merge([plane if plane is None else plane[-1:] for plane in planes], 1, dtype)


class _Runs:
    """Where the stream's runs of equal keys lie: in the stream, and in the ordered blocks.

    Arrays are by class, block, and run: the first elements of that class by the class of their
    seconds, then the second elements of that class.
    """

    def __init__(self, edges: npt.NDArray[np.intp]) -> None:
        """`edges` are by block where each key begins in its order, and the end."""
        by_key = (len(edges), _CLASSES, _CLASSES)
        sizes = np.diff(edges).reshape(by_key)
        places = edges[:, :-1].reshape(by_key)
        self._sizes = _with_last(sizes.transpose(2, 0, 1), sizes.sum(axis=2).T)
        self._places = _with_last(places.transpose(2, 0, 1), places[:, :, 0].T)
        self._ends = np.cumsum(self._sizes).reshape(self._sizes.shape)

    def of_blocks(self) -> list[list[int]]:
        """The runs of the stream: in which half of which ordered block each lies, and where.

        Halves are numbered: a block's first elements, its second ones, the next block's first, ...
        """
        runs = np.nonzero(self._sizes)
        numbers = 2 * runs[1] + (runs[2] == _CLASSES)
        starts, sizes = self._places[runs], self._sizes[runs]
        found: list[list[int]] = np.stack([numbers, starts, starts + sizes], axis=1).tolist()
        return found

    def of_stream(self, block: int) -> tuple[list[Run], list[Run]]:
        """Where in the stream an ordered block's first elements lie, and its second ones."""
        ends, sizes = self._ends[:, block].T, self._sizes[:, block].T
        runs = np.stack([ends - sizes, ends], axis=2)
        first, second = (half.reshape(-1, 2).tolist() for half in np.split(runs, [_CLASSES]))
        return first, second


def _joined(plane: memoryview | None, runs: Sequence[Run]) -> Plane | None:
    """These runs of a plane, one behind the other."""
    if plane is None:
        return None
    return np.frombuffer(b"".join([plane[start:stop] for start, stop in runs]), np.uint8)


def _with_last(runs: npt.NDArray[np.intp], last: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """`runs` with one more of each class and block."""
    return np.concatenate([runs, last[:, :, np.newaxis]], axis=2)

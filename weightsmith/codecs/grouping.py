"""Order a span's elements so that those whose base has the same exponent stand together.

How far a weight moves, in units in the last place, depends on its exponent: in a group of one
exponent the distances have one spread, and compress well. Encoder and decoder know the base, so the
order costs nothing to store.

The order, which is part of the format: a span's elements are cut into blocks of `BLOCK`, a block
into pairs of neighbours; an element's class is the low four bits of its base's exponent. In each
block the pairs are put in the order of (class of the second, class of the first), equal ones as
they stood. The stream is then, for each class and within it for each block, the first elements of
that class in this order, then the second elements of that class. The last of an odd number of
elements ends the stream.

Pairs, because the number of keys is what a sort costs: a stable sort of 8-bit keys is a radix sort.
Blocks, because they stay in the processor's cache.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from weightsmith.codecs.elements import Bits

BLOCK: Final = 1 << 18
"""Elements in a block."""

_CLASSES: Final = 16
_KEYS: Final = np.arange(_CLASSES**2, dtype=np.uint8)
_PAIR: Final = {1: "<u2", 2: "<u4", 4: "<u8", 8: "<c16"}
"""A dtype as wide as two elements of this width, to move pairs as one."""


class Grouping:
    """The order of one span, worked out from its base."""

    def __init__(self, base: Bits, exponent_shift: int) -> None:
        """`exponent_shift` is the position of the exponent's lowest bit in an element.

        Memory: four bytes an element.
        """
        paired = len(base) // 2 * 2
        self.blocks = [slice(at, min(at + BLOCK, paired)) for at in range(0, paired, BLOCK)]
        """Where each block stands in the span; the last of an odd number is a block of its own."""
        self._orders: list[npt.NDArray[np.intp]] = []
        """By block, its pairs in their order."""
        edges = np.empty((len(self.blocks), _KEYS.size + 1), np.intp)
        for block, row in zip(self.blocks, edges, strict=True):
            classes = np.empty(block.stop - block.start, np.uint8)
            np.right_shift(base[block], exponent_shift, out=classes, casting="unsafe")
            classes &= _CLASSES - 1
            both = classes.view("<u2")
            keys = (both | both >> 4).astype(np.uint8)
            order = np.argsort(keys, kind="stable")
            self._orders.append(order)
            row[:-1] = np.searchsorted(keys, _KEYS, sorter=order)
            row[-1] = len(keys)
        if paired < len(base):
            self.blocks.append(slice(paired, len(base)))
        self._runs = _Runs(edges)

    def gather(self, blocks: Iterable[Bits]) -> Bits:
        """The stream, from the elements of each of `self.blocks`."""
        halves: list[Bits] = []
        rest: list[Bits] = []
        for number, elements in enumerate(blocks):
            if number == len(self._orders):
                rest = [elements]
                break
            pairs = elements.view(_PAIR[elements.itemsize])
            ordered = np.take(pairs, self._orders[number], mode="clip").view(elements.dtype)
            halves += [ordered[::2], ordered[1::2]]
        return np.concatenate([*self._runs.of_blocks(halves), *rest])

    def scatter(self, stream: Bits) -> Iterator[Bits]:
        """The elements of each of `self.blocks`, from the stream."""
        pair = _PAIR[stream.itemsize]
        for number, order in enumerate(self._orders):
            ordered = np.empty(2 * len(order), stream.dtype)
            first, second = self._runs.of_stream(stream, number)
            np.concatenate(first, out=ordered[::2])
            np.concatenate(second, out=ordered[1::2])
            elements = np.empty_like(ordered)
            elements.view(pair)[order] = ordered.view(pair)
            yield elements
        paired = 2 * sum(map(len, self._orders))
        if paired < len(stream):
            yield stream[paired:]


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

    def of_blocks(self, halves: Sequence[Bits]) -> list[Bits]:
        """The runs of the stream, from the first and second elements of each ordered block."""
        runs = np.nonzero(self._sizes)
        numbers = 2 * runs[1] + (runs[2] == _CLASSES)
        starts, sizes = self._places[runs], self._sizes[runs]
        each = zip(numbers.tolist(), starts.tolist(), (starts + sizes).tolist(), strict=True)
        return [halves[number][start:end] for number, start, end in each]

    def of_stream(self, stream: Bits, block: int) -> tuple[list[Bits], list[Bits]]:
        """The runs of the first and of the second elements of an ordered block."""
        ends, sizes = self._ends[:, block].T, self._sizes[:, block].T
        starts = ends - sizes
        edges = list(zip(starts.ravel().tolist(), ends.ravel().tolist(), strict=True))
        runs = [stream[start:end] for start, end in edges]
        return runs[:-_CLASSES], runs[-_CLASSES:]


def _with_last(runs: npt.NDArray[np.intp], last: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """`runs` with one more of each class and block."""
    return np.concatenate([runs, last[:, :, np.newaxis]], axis=2)

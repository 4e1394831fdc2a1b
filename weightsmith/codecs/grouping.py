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

from collections.abc import Iterable, Iterator
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
        self._edges: list[list[int]] = []
        """By block, where in that order each key begins, and the end."""
        for block in self.blocks:
            classes = np.empty(block.stop - block.start, np.uint8)
            np.right_shift(base[block], exponent_shift, out=classes, casting="unsafe")
            classes &= _CLASSES - 1
            both = classes.view("<u2")
            keys = (both | both >> 4).astype(np.uint8)
            order = np.argsort(keys, kind="stable")
            edges = np.searchsorted(keys, _KEYS, sorter=order)
            self._orders.append(order)
            self._edges.append([*edges.tolist(), len(keys)])
        if paired < len(base):
            self.blocks.append(slice(paired, len(base)))

    def gather(self, blocks: Iterable[Bits]) -> Bits:
        """The stream, from the elements of each of `self.blocks`."""
        ordered: list[Bits] = []
        rest: list[Bits] = []
        for number, elements in enumerate(blocks):
            if number == len(self._orders):
                rest = [elements]
                break
            pairs = elements.view(_PAIR[elements.itemsize])
            taken = np.take(pairs, self._orders[number], mode="clip")
            ordered.append(taken.view(elements.dtype))
        return np.concatenate([*self._pieces(ordered), *rest])

    def scatter(self, stream: Bits) -> Iterator[Bits]:
        """The elements of each of `self.blocks`, from the stream."""
        ordered = [np.empty(2 * len(order), stream.dtype) for order in self._orders]
        at = 0
        for piece in self._pieces(ordered):
            end = at + len(piece)
            piece[:] = stream[at:end]
            at = end
        pair = _PAIR[stream.itemsize]
        for order, source in zip(self._orders, ordered, strict=True):
            elements = np.empty_like(source)
            elements.view(pair)[order] = source.view(pair)
            yield elements
        if at < len(stream):
            yield stream[at:]

    def _pieces(self, ordered: list[Bits]) -> Iterator[Bits]:
        """Views of the ordered blocks, piece by piece as they stand in the stream."""
        for each in range(_CLASSES):
            for elements, edges in zip(ordered, self._edges, strict=True):
                first, second = elements[::2], elements[1::2]
                for key in range(each, _CLASSES**2, _CLASSES):
                    if edges[key] < edges[key + 1]:
                        yield first[edges[key] : edges[key + 1]]
                yield second[edges[each * _CLASSES] : edges[(each + 1) * _CLASSES]]

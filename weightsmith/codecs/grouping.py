"""Order a span's elements so that those whose base has the same exponent stand together.

How far a weight moves, in units in the last place, depends on its exponent: in a group of one exponent
the distances have one spread, and compress well. Encoder and decoder know the base, so the order costs
nothing to store.

The order, which is part of the format: the span's elements are cut into blocks of `BLOCK`, a block into
pairs of neighbours; an element's class is the low four bits of its base's exponent. In each block the
pairs are put in the order of (class of the second, class of the first), equal ones as they stood. The
stream is then, for each class and within it for each block, the first elements of that class in this
order, then the second elements of that class. The last of an odd number of elements ends the stream.

Pairs, because sorting half as many keys is what makes it fast: a stable sort of 8-bit keys is a radix
sort, one key costs the same whatever it stands for, and a block's part of it stays in the cache.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

BLOCK: Final = 1 << 17
"""Elements in a block."""

_CLASSES: Final = 16
_KEYS: Final = np.arange(_CLASSES**2, dtype=np.uint8)
_PAIR: Final = {1: "<u2", 2: "<u4", 4: "<u8", 8: "<c16"}
"""A dtype as wide as two elements of this width, to move pairs as one."""

Bits = npt.NDArray[np.unsignedinteger]
"""Elements as unsigned little-endian integers."""


class Grouping:
    """The order of one span, worked out from its base."""

    def __init__(self, base: Bits, exponent_shift: int) -> None:
        """`exponent_shift` is the position of the exponent's lowest bit in an element.

        Memory: four bytes an element.
        """
        self._size = len(base)
        self._orders: list[npt.NDArray[np.intp]] = []
        """By block, the pairs in their order."""
        self._edges: list[list[int]] = []
        """By block, where in that order each key begins, and the end."""
        paired = base[: self._size // 2 * 2]
        for start in range(0, len(paired), BLOCK):
            classes = (paired[start : start + BLOCK] >> exponent_shift).astype(np.uint8)
            classes &= _CLASSES - 1
            both = classes.view("<u2")
            keys = (both | both >> 4).astype(np.uint8)
            order = np.argsort(keys, kind="stable")
            self._orders.append(order)
            edges = np.searchsorted(keys, _KEYS, sorter=order)
            self._edges.append([*edges.tolist(), len(keys)])

    def gather(self, elements: Bits) -> Bits:
        """The elements of a span, from their places into the stream."""
        pairs = elements[: self._size // 2 * 2].view(_PAIR[elements.itemsize])
        ordered = [
            np.take(pairs[start : start + len(order)], order, mode="clip")
            for start, order in self._blocks()
        ]
        pieces = [*self._pieces(ordered, elements.dtype), elements[self._size // 2 * 2 :]]
        return np.concatenate(pieces)

    def scatter(self, stream: Bits) -> Bits:
        """The inverse of `gather`."""
        pair = _PAIR[stream.itemsize]
        ordered = [np.empty(len(order), pair) for order in self._orders]
        at = 0
        for piece in self._pieces(ordered, stream.dtype):
            end = at + len(piece)
            piece[:] = stream[at:end]
            at = end
        elements = np.empty_like(stream)
        elements[at:] = stream[at:]
        pairs = elements[:at].view(pair)
        for (start, order), values in zip(self._blocks(), ordered, strict=True):
            pairs[start : start + len(order)][order] = values
        return elements

    def _blocks(self) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
        """Where each block's pairs begin, and their order."""
        return ((number * (BLOCK // 2), order) for number, order in enumerate(self._orders))

    def _pieces(self, ordered: list[npt.NDArray], dtype: np.dtype) -> Iterator[Bits]:
        """Views of ordered blocks' elements, piece by piece as they stand in the stream."""
        halves = [pairs.view(dtype).reshape(-1, 2) for pairs in ordered]
        for each in range(_CLASSES):
            for half, edges in zip(halves, self._edges, strict=True):
                for key in range(each, _CLASSES**2, _CLASSES):
                    if edges[key] < edges[key + 1]:
                        yield half[edges[key] : edges[key + 1], 0]
                yield half[edges[each * _CLASSES] : edges[(each + 1) * _CLASSES], 1]

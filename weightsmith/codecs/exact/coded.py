"""Spans that are coded in order by class, read by NumPy alone: the last resort, about 0.01 GB/s.

    span := 4, head, map of groups, low bits, states of the lanes, exceptions, words

The form, in all its parts, is in docs/reference/delta-format.md; `kernel.c` writes it, and reads it
hundreds of times as fast.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from weightsmith.codecs.elements import Bits, Elements, Exponents
from weightsmith.codecs.exact.payload import CODED

_CLASSES, _SYMBOLS = 8, 256
_BITS: Final = 11
_SLOTS: Final = 1 << _BITS
_LOWEST: Final = 1 << 16
_MOST_RAW, _MOST_LOW = 16 - _BITS, 24
_FIXED: Final = 10
"""Bytes of a head before the frequencies."""
_LANES: Final = frozenset({8, 64})
_NUMBER: Final = np.dtype("<u4")

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Class:
    raw: int
    origin: int
    freq: Numbers


@dataclass(frozen=True, slots=True)
class _Head:
    ceiling: int
    values: int
    zero: int
    low: int
    lanes: int
    with_map: bool
    exceptions: int
    classes: list[_Class]
    nbytes: int


def decode(payload: memoryview, base: Bits | None, out: Bits, elements: Elements) -> None:
    """Fill `out`; the base has as many elements, or is None.

    Memory: about sixty bytes an element, whatever the payload holds.
    Raises: ValueError, if the payload is damaged.
    """
    exponents = elements.exponents or Exponents(0, 0)
    width, top = elements.nbytes, 8 * elements.nbytes - 1
    head = _head(payload, top)
    count = -(-len(out) // head.lanes)
    skipped = np.zeros(count, np.bool_)
    rest = payload[head.nbytes :]
    if head.with_map:
        taken, rest = _take(rest, -(-count // 8))
        skipped = np.unpackbits(taken, bitorder="little")[:count].astype(np.bool_)
    padded = np.zeros((count, head.lanes), out.dtype)
    if base is not None:
        padded.reshape(-1)[: len(base)] = base
    known = padded[~skipped].astype(np.int64)
    lows, rest = _take(rest, known.size // 8 * head.low)
    states, rest = _take(rest, head.lanes * _NUMBER.itemsize)
    exceptions, rest = _take(rest, head.exceptions * width)
    if len(rest) % 2:
        raise ValueError("a span is longer than its content")
    below = head.ceiling - (known >> exponents.shift & exponents.mask)
    classes = np.clip(below, 0, _CLASSES - 1).astype(np.uint8)
    del below
    symbols, raws = _symbols(head, classes, states.view(_NUMBER), np.frombuffer(rest, "<u2"))
    is_value = classes >= head.values
    origins = np.array([each.origin for each in head.classes])[classes]
    numbers = np.where(is_value, (symbols & 127) + origins, symbols.astype(np.int64) - 128)
    numbers <<= np.array([each.raw for each in head.classes])[classes]
    numbers += raws
    numbers <<= head.low
    numbers += _lows(lows, head.low, known.size).reshape(known.shape)
    numbers <<= head.zero
    numbers += np.where(is_value, known & 1 << top, known)
    numbers += (is_value & (symbols < 128)).astype(np.int64) << top
    escaped = symbols == 0
    if np.count_nonzero(escaped) != head.exceptions:
        raise ValueError("a span has too few exceptions, or too many")
    numbers[escaped] = known[escaped] + exceptions.view(out.dtype).astype(np.int64)
    padded[~skipped] = numbers.astype(out.dtype)
    out[:] = padded.reshape(-1)[: len(out)]


def _take(content: memoryview, nbytes: int) -> tuple[npt.NDArray[np.uint8], memoryview]:
    """The first bytes, and what follows them.

    Raises: ValueError.
    """
    if len(content) < nbytes:
        raise ValueError("a span is cut short")
    return np.frombuffer(content[:nbytes], np.uint8), content[nbytes:]


def _head(payload: memoryview, top: int) -> _Head:
    """What stands before the content.

    Raises: ValueError.
    """
    if len(payload) < _FIXED or payload[0] != CODED:
        raise ValueError("a span's head is damaged")
    ceiling, values, zero, low, lanes = payload[1:6]
    exceptions = int.from_bytes(payload[6:_FIXED], "little")
    wrong = values > _CLASSES or low > _MOST_LOW or zero + low > top or lanes & 127 not in _LANES
    bits = _Bits(payload[_FIXED:])
    classes: list[_Class] = []
    while not wrong and len(classes) < _CLASSES:
        each = _Class(0, 0, np.zeros(_SYMBOLS, np.int64))
        if bits.take(1):
            raw = bits.take(3)
            origin = bits.take(16) if len(classes) >= values else 0
            each = _Class(raw, origin, _frequencies(bits))
            wrong = raw > _MOST_RAW or raw + low + zero > top
        classes.append(each)
    if wrong:
        raise ValueError("a span's head is damaged")
    nbytes = _FIXED + bits.nbytes
    return _Head(ceiling, values, zero, low, lanes & 127, lanes > 127, exceptions, classes, nbytes)


class _Bits:
    """Bits, the lowest of each byte first."""

    def __init__(self, content: memoryview) -> None:
        most = _CLASSES * 1024  # more than any frequencies take
        self._bits: list[int] = np.unpackbits(
            np.frombuffer(content[:most], np.uint8), bitorder="little"
        ).tolist()
        self._at = 0

    @property
    def nbytes(self) -> int:
        """Bytes of which something was taken."""
        return -(-self._at // 8)

    def take(self, count: int) -> int:
        """The number that the next bits are.

        Raises: ValueError, past the end.
        """
        taken = self._bits[self._at : self._at + count]
        self._at += count
        if len(taken) < count:
            raise ValueError("a span's head is damaged")
        return sum(bit << place for place, bit in enumerate(taken))


def _frequencies(bits: _Bits) -> Numbers:
    """How often each symbol of a class is, of `_SLOTS` in all.

    Raises: ValueError, if they do not add up.
    """
    found = np.zeros(_SYMBOLS, np.int64)
    first, last = bits.take(8), bits.take(8)
    length = 0
    for symbol in range(first, last + 1):
        zigzag = 0
        while not bits.take(1):
            zigzag += 1
        length += -(zigzag + 1) // 2 if zigzag % 2 else zigzag // 2
        if not 0 <= length <= _BITS + 1:
            raise ValueError("a span's head is damaged")
        if length:
            found[symbol] = bits.take(length - 1) | 1 << (length - 1)
    if found.sum() != _SLOTS:
        raise ValueError("a span's head is damaged")
    return found


def _symbols(
    head: _Head, classes: npt.NDArray[np.uint8], start: npt.NDArray[Any], words: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.integer[Any]]]:
    """The symbol of each element, and the bits that follow it.

    Shapes: classes and both results (groups, lanes), start (lanes,).
    Raises: ValueError, if there are too few words or too many.
    """
    symbol, range_ = (np.concatenate(each) for each in zip(*map(_slots, head.classes), strict=True))
    shifts = np.array([each.raw for each in head.classes], np.uint8)[classes]
    slots, numbers = classes.astype(np.int32) << _BITS, np.empty_like(classes)
    state, at = start.astype(np.int64), 0
    words = words.astype(np.int64)
    for slot, number, shift in zip(slots, numbers, shifts, strict=True):
        np.add(slot, state & _SLOTS - 1, out=slot)
        wanted = range_.take(slot)
        state >>= _BITS
        state *= wanted & 0xFFFF
        state += wanted >> 16
        number[:] = state  # its lowest byte has the bits that follow the symbol
        state >>= shift
        need = state < _LOWEST
        taken = words[at : at + int(np.count_nonzero(need))]
        at += len(taken)
        try:
            state[need] = state[need] << 16 | taken
        except ValueError:
            raise ValueError("a span is cut short") from None
    if at != len(words) or np.any(state != _LOWEST):
        raise ValueError("a span's words are damaged")
    return symbol.astype(np.uint8)[slots], numbers & (1 << shifts) - 1


def _slots(each: _Class) -> Iterator[Numbers]:
    """Two arrays, by slot of a class. First: the slot's symbol. Second: how many slots that symbol
    has, and, from bit 16 up, which of them this one is.
    """
    if not each.freq.any():  # no element should have this class
        yield np.full(_SLOTS, 128)
        yield np.zeros(_SLOTS, np.int64)
        return
    symbols = np.repeat(np.arange(_SYMBOLS), each.freq)
    places = np.arange(_SLOTS) - (np.cumsum(each.freq) - each.freq)[symbols]
    yield symbols
    yield each.freq[symbols] | places << 16


def _lows(packed: npt.NDArray[np.uint8], low: int, count: int) -> Numbers:
    """The low bits of each element, which stand one behind the other."""
    if not low:
        return np.zeros(count, np.int64)
    bits = np.unpackbits(packed, bitorder="little").reshape(count, low)
    found = np.zeros(count, np.int64)
    for place in range(low):
        found |= bits[:, place].astype(np.int64) << place
    return found

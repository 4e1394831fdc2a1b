"""One span of an exact delta: the target's bytes from the base's and a payload, and back.

    span := nothing                                    the target is the base
          | 1, planes of the stream
          | 2, u32 changes, planes of gaps, planes of the changed distances, both in the stream
          | 3, the target's bytes

The stream holds one distance an element. Bit patterns are taken as integers, so that the difference
of two floats of one sign is their distance in units in the last place. The difference target -
base, modulo the element's width, is folded (0, -1, 1, -2, ... -> 0, 1, 2, 3, ...), so that a small
step either way has zeros in all its upper bytes. A gap is the number of unchanged elements before a
changed one.

Where the base ends inside a span it goes on with zero bits. A span past its end, or of a tensor
without one, has the patterns themselves for distances, rotated left by one bit: a float's exponent
then fills a byte, and its sign is the lowest bit.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from weightsmith.codecs import planes
from weightsmith.codecs.elements import Bits, Elements
from weightsmith.codecs.grouping import Grouping

_PLANES, _SPARSE, _STORED = 1, 2, 3
_GLANCE: Final = 1024
"""Elements that are compared first: most spans differ early, or nowhere."""

_LARGEST_NBYTES: Final = 16 * 1024 * 1024


def _keep_freed_memory() -> None:
    """Let the C library keep what one span frees for the next.

    glibc does so for blocks up to the largest it ever freed; larger ones it hands back to the
    system, and faulting them in again takes a fifth of all time. Elsewhere this does nothing.
    Source: mallopt(3), M_MMAP_THRESHOLD.
    """
    np.empty(_LARGEST_NBYTES, np.uint8)


_keep_freed_memory()


def group(base: Bits, size: int, elements: Elements) -> Grouping | None:
    """The order in which a span of `size` elements is coded; None for the order they stand in."""
    if elements.exponent_shift is None or not len(base):
        return None
    return Grouping(_padded(base, size), elements.exponent_shift)


def encode_span(base: Bits, target: Bits, grouping: Grouping | None) -> bytes:
    """The span's payload, the smallest of its kinds; `grouping` is what `group` gives.

    The base may be shorter than the target.
    """
    padded = _padded(base, len(target))
    if same(padded[:_GLANCE], target[:_GLANCE]) and same(padded, target):
        return b""
    if grouping is not None:
        stream = grouping.gather(_distances(padded[b], target[b]) for b in grouping.blocks)
    else:
        stream = _distances(padded, target) if len(base) else _rotated_left(target)
    if np.count_nonzero(stream) * 2 < len(stream):
        content = bytes([_SPARSE]) + _encode_sparse(stream)
    else:
        content = bytes([_PLANES]) + planes.pack(stream)
    return content if len(content) <= target.nbytes else bytes([_STORED]) + target.tobytes()


def decode_span(
    payload: memoryview, base: Bits, out: Bits, elements: Elements, grouping: Grouping | None = None
) -> None:
    """Fill `out` with the target's elements.

    Memory: a few times the span, whatever the payload holds.
    Raises: ValueError, zstandard.ZstdError, if the payload is damaged.
    """
    padded = _padded(base, len(out))
    if not payload:
        out[:] = padded
        return
    kind, content = payload[0], payload[1:]
    if kind == _STORED:
        if len(content) != out.nbytes:
            raise ValueError("a span has another length than the target's")
        out[:] = elements.view(content)
        return
    if kind == _PLANES:
        stream, rest = planes.unpack(content, len(out), out.dtype)
    elif kind == _SPARSE:
        stream, rest = _decode_sparse(content, len(out), out.dtype)
    else:
        raise ValueError(f"a span of the unknown kind {kind}")
    if rest:
        raise ValueError("a span is longer than its content")
    grouping = grouping or group(base, len(out), elements)
    if grouping is not None:
        for block, distances in zip(grouping.blocks, grouping.scatter(stream), strict=True):
            _move(padded[block], distances, out[block])
    elif len(base):
        _move(padded, stream, out)
    else:
        out[:] = _rotated_right(stream)


def same(a: Bits, b: Bits) -> bool:
    """Whether two runs of elements have the same bits; compared eight bytes at a time."""
    whole = a.nbytes // 8 * 8
    a, b = a.view(np.uint8), b.view(np.uint8)
    wide = np.array_equal(a[:whole].view(np.uint64), b[:whole].view(np.uint64))
    return wide and np.array_equal(a[whole:], b[whole:])


def _padded(base: Bits, size: int) -> Bits:
    """The base with zeros behind it up to `size` elements."""
    if len(base) == size:
        return base
    padded = np.zeros(size, base.dtype)
    padded[: len(base)] = base
    return padded


def _distances(base: Bits, target: Bits) -> Bits:
    """The folded differences."""
    distances = target - base
    signs = distances.view(f"<i{distances.itemsize}") >> (8 * distances.itemsize - 1)
    distances <<= 1
    distances ^= signs.view(distances.dtype)
    return distances


def _move(base: Bits, distances: Bits, out: Bits) -> None:
    """The inverse of `_distances`; uses up `distances`."""
    signs = distances & 1
    np.negative(signs, out=signs)
    distances >>= 1
    distances ^= signs
    np.add(base, distances, out=out)


def _rotated_left(elements: Bits) -> Bits:
    """Each pattern with its highest bit moved to the lowest place."""
    return elements << 1 | elements >> (8 * elements.itemsize - 1)


def _rotated_right(elements: Bits) -> Bits:
    """The inverse of `_rotated_left`."""
    return elements >> 1 | elements << (8 * elements.itemsize - 1)


def _encode_sparse(stream: Bits) -> bytes:
    positions = np.flatnonzero(stream != 0)  # of a mask, twice as fast as of the numbers
    gaps = np.diff(positions, prepend=-1) - 1
    count = len(positions).to_bytes(planes.NUMBER_NBYTES, "little")
    return count + planes.pack(gaps.astype("<u4")) + planes.pack(stream[positions])


def _decode_sparse(content: memoryview, size: int, dtype: npt.DTypeLike) -> tuple[Bits, memoryview]:
    count, content = planes.take_number(content)
    if count > size:
        raise ValueError("more changes than elements")
    gaps, content = planes.unpack(content, count, "<u4")
    values, content = planes.unpack(content, count, dtype)
    positions = np.cumsum(gaps, dtype=np.int64) + np.arange(count)
    if count and positions[-1] >= size:
        raise ValueError("a change lies outside its span")
    stream = np.zeros(size, dtype)
    stream[positions] = values
    return stream, content

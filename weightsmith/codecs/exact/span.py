"""One span of an exact delta: the target's bytes from the base's and a payload, and back.

    span := nothing                                            the target is the base
          | 1, ceiling, planes of the stream
          | 2, ceiling, u32 changes, planes of gaps, planes of the changed numbers of the stream
          | 3, the target's bytes
          | 4, and the elements in order, coded by class: see `kernel`

The stream holds one number an element. Bit patterns are taken as integers, so that the difference
of two floats of one sign is their distance in units in the last place. The number is target - base,
modulo the element's width, plus 128 in every byte but the highest: so a small step leaves the upper
bytes as they are, whether it goes up or down. A gap is the number of unchanged elements before a
changed one.

Where the base ends inside a span it goes on with zero bits. A span past its end, or of a tensor
without one, has the patterns themselves for numbers, rotated left by one bit: a float's exponent
then fills a byte, and its sign is the lowest bit; zero counts as unchanged. For `ceiling`, 0 where
it means nothing, see `grouping`.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from weightsmith.codecs.elements import Bits, Elements
from weightsmith.codecs.exact import coded, kernel, planes
from weightsmith.codecs.exact.grouping import Grouping, ceiling_of
from weightsmith.codecs.exact.kernel import Kernel
from weightsmith.codecs.exact.payload import CODED
from weightsmith.codecs.exact.planes import Plane

_PLANES, _SPARSE, _STORED = 1, 2, 3
_UNCHANGED: Final = {1: 0, 2: 0x80, 4: 0x80_80_80, 8: 0x80_80_80_80_80_80_80}
"""By an element's width in bytes, the number that says that it is the base's, unchanged."""
_NOWHERE: Final = np.uint32(0xFFFF_FFFF)
"""The place before the first."""
_FEW: Final = 512
"""If fewer than one element in this many changed, a span is not coded by class."""
_TINY: Final = 1024
"""Spans of fewer elements are not coded by class: the tables cost more than they save."""
_SHORT: Final = 4096
"""If a payload coded by class is shorter than this many bytes, its tables may be most of it, and
the other kinds are tried too.
"""
_MUCH: Final = 50
"""If more than one bit in this many is wasted on elements that the other kinds store in less, those
are tried too.
"""
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


def encode_span(
    base: Bits, target: Bits, elements: Elements, writer: Kernel | None = None
) -> tuple[bytes, Grouping | None]:
    """The span's payload, the smallest of its kinds, and the order in which it is coded.

    The base may be shorter than the target. Without a `writer`, elements are not coded by class.
    """
    padded = _padded(base, len(target))
    if same(padded[:_GLANCE], target[:_GLANCE]) and same(padded, target):
        return b"", None
    if writer is None or elements.exponents is None or len(target) < _TINY:
        return _encode_by_planes(base, padded, target, elements)
    made = writer.encode(padded if len(base) else None, target, elements)
    # Coding by class is bad for a span that hardly changed, and for one without any pattern.
    if not made.payload or made.changes * _FEW < len(target):
        return _encode_by_planes(base, padded, target, elements)
    if len(made.payload) < _SHORT or made.wasted * _MUCH > 8 * len(made.payload):
        other, grouping = _encode_by_planes(base, padded, target, elements)
        if len(other) < len(made.payload):
            return other, grouping
    if len(made.payload) > target.nbytes:
        return bytes([_STORED]) + target.tobytes(), None
    return made.payload, None


def _encode_by_planes(
    base: Bits, padded: Bits, target: Bits, elements: Elements
) -> tuple[bytes, Grouping | None]:
    """The smallest of the kinds 1 to 3, and the order in which it is coded."""
    grouping = _grouping(base, padded, elements)
    changes = 0

    def distances(block: slice) -> Bits:
        nonlocal changes
        difference = target[block] - padded[block]
        changes += int(np.count_nonzero(difference))
        difference += _unchanged(base, target.dtype)
        return difference

    if grouping is not None:
        stream = grouping.gather(map(distances, grouping.blocks))
    elif len(base):
        stream = planes.split(distances(slice(None)))
    else:
        changes = int(np.count_nonzero(target))
        stream = planes.split(_rotated_left(target))
    ceiling = _ceiling(grouping)
    if changes * 2 < len(target):
        packed = _pack_sparse(stream, _unchanged(base, target.dtype))
        parts = [bytes([_SPARSE, ceiling]), *packed]
    else:
        parts = [bytes([_PLANES, ceiling]), *planes.pack(stream)]
    if sum(map(len, parts)) > target.nbytes:
        parts = [bytes([_STORED]), target.data.cast("B")]
    return b"".join(parts), grouping


def decode_span(
    payload: memoryview,
    base: Bits,
    out: Bits,
    elements: Elements,
    grouping: Grouping | None = None,
) -> None:
    """Fill `out` with the target's elements; `grouping` is the encoder's, if it is at hand.

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
    if kind == CODED:
        if elements.exponents is None:
            raise ValueError("a span of elements that have no classes")
        reader = kernel.find()
        (coded if reader is None else reader).decode(
            payload, padded if len(base) else None, out, elements
        )
        return
    if kind not in {_PLANES, _SPARSE}:
        raise ValueError(f"a span of the unknown kind {kind}")
    if not content:
        raise ValueError("a span is cut short")
    ceiling, content = content[0], content[1:]
    unchanged = _unchanged(base, out.dtype)
    stream: Sequence[Plane | None]
    if kind == _PLANES:
        stream, rest = planes.unpack(content, len(out), out.itemsize)
    else:
        stream, rest = _unpack_sparse(content, len(out), unchanged)
    if rest:
        raise ValueError("a span is longer than its content")
    grouping = grouping or _grouping(base, padded, elements, ceiling)
    if ceiling != _ceiling(grouping):
        raise ValueError("a span of other groups than its base has")
    if grouping is not None:
        numbers = grouping.scatter(stream, out.dtype)
        for block, each in zip(grouping.blocks, numbers, strict=True):
            np.add(padded[block], each, out=out[block])
            out[block] -= unchanged
        return
    whole = planes.merge(stream, len(out), out.dtype)
    if len(base):
        np.add(padded, whole, out=out)
        out -= unchanged
    else:
        out[:] = _rotated_right(whole)


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


def _grouping(
    base: Bits, padded: Bits, elements: Elements, ceiling: int | None = None
) -> Grouping | None:
    """The order in which a span is coded; None for the order in which its elements stand.

    Without a `ceiling`, one that suits the base.
    """
    if elements.exponents is None or not len(base):
        return None
    if ceiling is None:
        ceiling = ceiling_of(padded, elements.exponents)
    return Grouping(padded, elements.exponents, ceiling)


def _ceiling(grouping: Grouping | None) -> int:
    return 0 if grouping is None else grouping.ceiling


def _unchanged(base: Bits, dtype: np.dtype[Any]) -> np.integer[Any]:
    """The number that stands for an unchanged element: the base's; without a base, zero bits."""
    number: np.integer[Any] = dtype.type(_UNCHANGED[dtype.itemsize] if len(base) else 0)
    return number


def _rotated_left(elements: Bits) -> Bits:
    """Each pattern with its highest bit moved to the lowest place."""
    return elements << 1 | elements >> (8 * elements.itemsize - 1)


def _rotated_right(elements: Bits) -> Bits:
    """The inverse of `_rotated_left`."""
    return elements >> 1 | elements << (8 * elements.itemsize - 1)


def _pack_sparse(stream: Sequence[Plane], unchanged: np.integer[Any]) -> list[bytes | memoryview]:
    changed = np.zeros(len(stream[0]), np.bool_)
    for plane, byte in zip(stream, _bytes_of(unchanged), strict=True):
        changed |= plane != byte
    positions = np.flatnonzero(changed)
    gaps = np.diff(positions.astype("<u4"), prepend=_NOWHERE) - 1
    return [
        len(positions).to_bytes(planes.NUMBER_NBYTES, "little"),
        *planes.pack(planes.split(gaps)),
        *planes.pack([np.take(plane, positions) for plane in stream]),
    ]


def _unpack_sparse(
    content: memoryview, size: int, unchanged: np.integer[Any]
) -> tuple[list[Plane], memoryview]:
    count, content = planes.take_number(content)
    if count > size:
        raise ValueError("more changes than elements")
    packed, content = planes.unpack(content, count, planes.NUMBER_NBYTES)
    steps = planes.merge(packed, count, "<u4").astype(np.int64) + 1
    positions = np.cumsum(steps, out=steps) - 1
    if count and positions[-1] >= size:
        raise ValueError("a change lies outside its span")
    changed, content = planes.unpack(content, count, unchanged.itemsize)
    stream = [np.full(size, byte, np.uint8) for byte in _bytes_of(unchanged)]
    for plane, values in zip(stream, changed, strict=True):
        plane[positions] = 0 if values is None else values
    return stream, content


def _bytes_of(number: np.integer[Any]) -> bytes:
    """The number's bytes, the most significant first."""
    return int(number).to_bytes(number.itemsize, "big")

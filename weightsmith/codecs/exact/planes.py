"""Integers as byte planes, each compressed: the most significant bytes of all, then the next, ...

    plane := u32 length, content
        length 0                      all bytes are zero
        length of the plane itself    the bytes as they are
        any other                     one zstd frame that names its content's size

Source: RFC 8878 for the zstd frame; which compressor made it does not matter to a reader.
"""

import threading
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import zstandard

from weightsmith.codecs.elements import Bits

Plane = npt.NDArray[np.uint8]
"""One byte of each number."""
NUMBER_NBYTES: Final = 4
_FRAME: Final = zstandard.ZstdCompressionParameters.from_level(
    1, window_log=15, hash_log=6, min_match=7
)
"""What suits numbers without repeats, measured on weights: blocks of 32 KiB, each with its own
table of symbols, and hardly a search for matches. Smaller than level 3 and twice as fast.
"""


class _Coders(threading.local):
    """The zstd coders of one thread; no coder may serve two threads at a time."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(compression_params=_FRAME)
        self.decompressor = zstandard.ZstdDecompressor()


_CODERS: Final = _Coders()


def split(values: Bits) -> list[Plane]:
    """The planes of `values`."""
    planes = [np.empty(len(values), np.uint8) for _ in range(values.itemsize)]
    for byte, plane in enumerate(reversed(planes)):
        np.right_shift(values, 8 * byte, out=plane, casting="unsafe")
    return planes


def merge(planes: Sequence[Plane | None], count: int, dtype: npt.DTypeLike) -> Bits:
    """The `count` values of `dtype` that have these planes; None is one of zeros."""
    values: Bits = np.zeros(0, dtype)
    for plane in planes:
        if len(values):
            values <<= 8
            if plane is not None:
                values |= plane
        elif plane is not None:
            values = plane.astype(dtype)
    return values if len(values) else np.zeros(count, dtype)


def pack(planes: Sequence[Plane]) -> list[bytes | memoryview]:
    """What stands for the planes, in parts to be joined."""
    parts: list[bytes | memoryview] = []
    for plane in planes:
        content: bytes | memoryview = b""
        if plane.size and plane.max():
            content = _CODERS.compressor.compress(plane.data)
            if len(content) >= plane.size:
                content = plane.data
        parts += [len(content).to_bytes(NUMBER_NBYTES, "little"), content]
    return parts


def take_number(packed: memoryview) -> tuple[int, memoryview]:
    """The u32 at the start of `packed`, and what follows it.

    Raises: ValueError.
    """
    if len(packed) < NUMBER_NBYTES:
        raise ValueError("a span is cut short")
    return int.from_bytes(packed[:NUMBER_NBYTES], "little"), packed[NUMBER_NBYTES:]


def unpack(packed: memoryview, count: int, width: int) -> tuple[list[Plane | None], memoryview]:
    """The planes at the start of `packed`, of `count` integers of `width` bytes, and what follows.

    None is a plane of zeros.
    Memory: bounded by `count`, whatever `packed` holds.
    Raises: ValueError, zstandard.ZstdError, if it holds no such thing.
    """
    planes: list[Plane | None] = []
    for _ in range(width):
        length, packed = take_number(packed)
        content, packed = packed[:length], packed[length:]
        if len(content) < length:
            raise ValueError("a plane is cut short")
        planes.append(np.frombuffer(_bytes(content, count), np.uint8) if length else None)
    return planes, packed


def _bytes(content: memoryview, count: int) -> bytes | memoryview:
    """The bytes of a plane that are not all zero."""
    if len(content) == count:
        return content
    if zstandard.frame_content_size(content) != count:
        raise ValueError("a plane has another length than its span")
    return _CODERS.decompressor.decompress(content, allow_extra_data=False)

"""Integers as byte planes, each compressed: the most significant bytes of all, then the next, ...

    plane := u32 length, content
        length 0                      all bytes are zero
        length of the plane itself    the bytes as they are
        any other                     one zstd frame that names its content's size

Source: RFC 8878 for the zstd frame; which compressor made it does not matter to a reader.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import zstandard

from weightsmith.codecs.elements import Bits

NUMBER_NBYTES: Final = 4
_FRAME: Final = zstandard.ZstdCompressionParameters.from_level(
    1, window_log=15, hash_log=6, min_match=7
)
"""What suits numbers without repeats, measured on weights: blocks of 32 KiB, each with its own
table of symbols, and hardly a search for matches. Smaller than level 3 and twice as fast.
"""


def pack(values: Bits) -> bytes:
    """The planes of `values`."""
    compressor = zstandard.ZstdCompressor(compression_params=_FRAME)
    parts = []
    for byte in reversed(range(values.itemsize)):
        plane = np.empty(len(values), np.uint8)
        np.right_shift(values, 8 * byte, out=plane, casting="unsafe")
        content = b""
        if plane.size and plane.max():
            content = compressor.compress(plane.data)
            if len(content) >= plane.size:
                content = plane.tobytes()
        parts += [len(content).to_bytes(NUMBER_NBYTES, "little"), content]
    return b"".join(parts)


def take_number(packed: memoryview) -> tuple[int, memoryview]:
    """The u32 at the start of `packed`, and what follows it.

    Raises: ValueError.
    """
    if len(packed) < NUMBER_NBYTES:
        raise ValueError("a span is cut short")
    return int.from_bytes(packed[:NUMBER_NBYTES], "little"), packed[NUMBER_NBYTES:]


def unpack(packed: memoryview, count: int, dtype: npt.DTypeLike) -> tuple[Bits, memoryview]:
    """The `count` integers at the start of `packed`, and what follows them.

    Memory: bounded by `count`, whatever `packed` holds.
    Raises: ValueError, zstandard.ZstdError, if it holds no such thing.
    """
    values: Bits | None = None
    for byte in reversed(range(np.dtype(dtype).itemsize)):
        length, packed = take_number(packed)
        content, packed = packed[:length], packed[length:]
        if len(content) < length:
            raise ValueError("a plane is cut short")
        if length:
            plane = np.frombuffer(_bytes(content, count), np.uint8)
            if values is None:
                values = np.left_shift(plane, 8 * byte, dtype=dtype)
            else:
                values |= np.left_shift(plane, 8 * byte, dtype=dtype) if byte else plane
    return np.zeros(count, dtype) if values is None else values, packed


def _bytes(content: memoryview, count: int) -> bytes | memoryview:
    """The bytes of a plane that are not all zero."""
    if len(content) == count:
        return content
    if zstandard.frame_content_size(content) != count:
        raise ValueError("a plane has another length than its span")
    return zstandard.ZstdDecompressor().decompress(content, allow_extra_data=False)

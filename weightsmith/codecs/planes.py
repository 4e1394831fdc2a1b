"""Integers as byte planes, each compressed: the most significant bytes of all, then the next, ...

    for each plane: u32 length, content
        length 0                      all bytes are zero
        length of the plane itself    the bytes as they are
        any other                     one zstd frame

Source: RFC 8878 for the zstd frame; which compressor made it does not matter to a reader.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import zstandard

LENGTH_NBYTES: Final = 4

_FRAME: Final = zstandard.ZstdCompressionParameters.from_level(
    1, window_log=15, hash_log=6, min_match=7
)
"""What suits numbers without repeats, measured on weights: blocks of 32 KiB, each with its own
table of symbols, and hardly a search for matches. Smaller than level 3 and twice as fast."""


def pack(values: npt.NDArray[np.unsignedinteger]) -> bytes:
    """The planes of `values`, compressed."""
    compressor = zstandard.ZstdCompressor(compression_params=_FRAME)
    parts = []
    for byte in reversed(range(values.itemsize)):
        plane = (values >> (8 * byte)).astype(np.uint8)
        content = b""
        if plane.size and plane.max():
            content = compressor.compress(plane)
            if len(content) >= plane.size:
                content = plane.tobytes()
        parts += [len(content).to_bytes(LENGTH_NBYTES, "little"), content]
    return b"".join(parts)


def unpack(
    packed: memoryview, count: int, dtype: str
) -> tuple[npt.NDArray[np.unsignedinteger], memoryview]:
    """The `count` integers at the start of `packed`, and what follows them.

    Memory: bounded by `count`, whatever `packed` holds.
    Raises: ValueError, zstandard.ZstdError, if that is no such thing.
    """
    values = np.zeros(count, dtype)
    for byte in range(values.itemsize):
        length = int.from_bytes(packed[:LENGTH_NBYTES], "little")
        content, packed = packed[LENGTH_NBYTES:][:length], packed[LENGTH_NBYTES + length :]
        if byte:
            values <<= 8
        if len(content) != length:
            raise ValueError("a plane is cut short")
        if length:
            values |= np.frombuffer(_plane(content, count), np.uint8)
    return values, packed


def _plane(content: memoryview, count: int) -> bytes | memoryview:
    """One plane's bytes."""
    if len(content) == count:
        return content
    if zstandard.frame_content_size(content) != count:
        raise ValueError("a plane has another length than its span")
    return zstandard.ZstdDecompressor().decompress(content, allow_extra_data=False)

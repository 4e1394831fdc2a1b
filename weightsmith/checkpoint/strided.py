"""Read a tensor whose elements do not lie side by side in its file; only torch files hold such."""

import mmap
from typing import Final

from weightsmith import fs
from weightsmith.formats.tensors import StoredTensor, dtype_bits

_UNSIGNED: Final = {1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "V16"}
"""NumPy types that move elements of a width without looking at them."""


def read_strided(file: fs.Readable, stored: StoredTensor, start: int, buffer: memoryview) -> None:
    """Fill `buffer` with the tensor's bytes in row-major order, from byte `start` of that order.

    `start` and the buffer's length are whole elements. The file is mapped read-only for the call;
    the table's reader has checked that all elements lie inside the file.
    """
    import numpy as np

    itemsize = dtype_bits(stored.info.dtype) // 8
    dtype = np.dtype(_UNSIGNED[itemsize])
    first, count = start // itemsize, len(buffer) // itemsize
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        strides = tuple(step * itemsize for step in stored.strides or ())
        tensor: np.ndarray = np.ndarray(stored.info.shape, dtype, mapped, stored.offset, strides)
        np.frombuffer(buffer, dtype)[:] = tensor.flat[first : first + count]
        del tensor  # a mapping with views of it alive cannot be closed

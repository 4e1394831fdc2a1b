"""Sums and differences of blocks of one dtype, without torch, whose import takes a second and most
of the memory that a delta of one dtype needs.

NumPy adds wide floats and integers; it has no bfloat16 and takes half a second for a GB of float16,
so NumKong adds those two. Both round to nearest even, subnormals included, as torch does.
"""

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from numkong import Tensor

_WIDE: Final = {
    "F32": "f4",
    "F64": "f8",
    "U8": "u1",
    "I8": "i1",
    "I16": "i2",
    "I32": "i4",
    "I64": "i8",
}
_HALVES: Final[dict[str, Literal["float16", "bfloat16"]]] = {"F16": "float16", "BF16": "bfloat16"}
_SIGN: Final = 0x8000
"""The sign bit of a 16-bit float."""


def add(left: memoryview, right: memoryview, out: memoryview, dtype: str) -> None:
    """``out = left + right``, all of `dtype` and of one length; `out` may be one of the others.

    Dtypes: F16, BF16, F32, F64; integers, which wrap around.
    """
    import numpy as np

    if dtype in _WIDE:
        a, b, c = (np.frombuffer(block, _WIDE[dtype]) for block in (left, right, out))
        with np.errstate(all="ignore"):  # infinities and NaN are values like others
            np.add(a, b, out=c)
    elif out:
        import numkong

        numkong.add(_halves(left, dtype), _halves(right, dtype), out=_halves(out, dtype))


def subtract(left: memoryview, right: memoryview, out: memoryview, dtype: str) -> None:
    """``out = left - right``, as `add`; `out` may be `right`, and may not be `left`."""
    import numpy as np

    if dtype in _WIDE:
        a, b, c = (np.frombuffer(block, _WIDE[dtype]) for block in (left, right, out))
        with np.errstate(all="ignore"):
            np.subtract(a, b, out=c)
    else:
        negated = np.frombuffer(out, np.uint16)
        np.bitwise_xor(np.frombuffer(right, np.uint16), _SIGN, out=negated)
        add(left, out, out, dtype)


def _halves(block: memoryview, dtype: str) -> "Tensor":
    """The same memory as 16-bit floats."""
    import numkong
    import numpy as np

    bits = np.frombuffer(block, np.uint16)
    return numkong.from_pointer(bits.ctypes.data, (len(bits),), _HALVES[dtype], owner=bits)

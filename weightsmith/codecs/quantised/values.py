"""Numbers of narrow and packed dtypes as float32, and back into the dtype of a result."""

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from weightsmith.codecs.arithmetic import Block, cast
from weightsmith.errors import QuantisationInvalid
from weightsmith.formats.tensors import TensorInfo

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

_INTEGERS: Final = {"I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}
NAN_EXPONENT: Final = 255
"""What stands for no number among exponents (F8_E8M0)."""


def floats(raw: memoryview, dtype: str) -> "Array":
    """All values as float32, exactly but for I32, I64 and F64; U8 and F8_E8M0 are exponents of 2.

    Source: OCP Microscaling Formats 1.0 (E8M0, E4M3, E5M2).
    """
    import numpy as np

    found: Array
    if dtype in _INTEGERS:
        found = np.frombuffer(raw, _INTEGERS[dtype]).astype("f4")
    elif dtype == "BF16":
        found = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("f4")
    elif dtype in {"F16", "F32", "F64"}:
        found = np.frombuffer(raw, f"<f{int(dtype[1:]) // 8}").astype("f4")
    else:
        found = _table(dtype)[np.frombuffer(raw, "u1")]
    return found


@cache
def _table(dtype: str) -> "Array":
    """The value of every byte."""
    import numpy as np

    byte = np.arange(256)
    found: Array
    if dtype in {"U8", "F8_E8M0"}:
        found = np.ldexp(1.0, np.minimum(byte, NAN_EXPONENT - 1) - 127).astype("f4")
        found[NAN_EXPONENT] = np.nan
        return found
    if dtype == "F8_E5M2":  # the upper half of a float16
        found = (byte.astype("u2") << 8).view("f2").astype("f4")
        return found
    if dtype != "F8_E4M3":
        raise KeyError(dtype)
    exponent, fraction = (byte >> 3) & 0xF, byte & 7
    size = np.where(
        exponent > 0, np.ldexp(1 + fraction / 8, exponent - 7), np.ldexp(fraction / 8, -6)
    )
    size[(byte & 0x7F) == 0x7F] = np.nan
    found = np.where(byte & 0x80, -size, size).astype("f4")
    return found


def scales(raw: memoryview, info: TensorInfo) -> "Array":
    """The values of a scale, all of them numbers.

    Raises: QuantisationInvalid, if one is not.
    """
    import numpy as np

    found = floats(raw, info.dtype)
    if not np.isfinite(found).all():
        raise QuantisationInvalid(
            name=info.name, reason="it holds NaN or infinity, which is no scale"
        )
    return found


def rounded(values: "Array", dtype: str) -> "Array":
    """Float32 values as they are once they were rounded to a dtype."""
    import numpy as np

    if dtype == "F32":
        return values
    flat = np.ascontiguousarray(values).reshape(-1)
    raw = bytearray(flat.size * 2)
    cast(Block(flat.view("u1").data, "F32"), Block(memoryview(raw), dtype))
    return floats(memoryview(raw), dtype).reshape(values.shape)


def store(values: "Array", dtype: str, out: memoryview) -> None:
    """Fill `out` with float32 values, rounded to a dtype."""
    import numpy as np

    flat = np.ascontiguousarray(values, "f4").reshape(-1)
    cast(Block(flat.view("u1").data, "F32"), Block(out, dtype))


def nibbles(packed: "Array", bits: int) -> "Array":
    """Integers of `bits` in 32-bit words, the lowest first, as one more dimension behind."""
    import numpy as np

    shifts = np.arange(0, 32, bits, dtype="u4")
    return (packed[..., None] >> shifts) & np.uint32((1 << bits) - 1)

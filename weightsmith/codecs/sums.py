"""The compiled part of the rule *linear*, where there is one: a sum in one pass over memory.

`sums.c` is built with the package where there is a C compiler, and is of use on x86 processors with
AVX2 and F16C. Elsewhere `arithmetic` sums with NumPy, with the same bits; only which of two NaN a
sum keeps is left to either.
"""

from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Final

_INTERFACE: Final = 1
"""Version of the interface to `sums.c`. A compiled file that another version of the package left
gives another number, and is not used.
"""
_DTYPES: Final = {"F16": "h", "BF16": "b", "F32": "f"}
"""The dtypes that `sums.c` takes, and what it calls them."""


def fill(
    factors: Sequence[float],
    blocks: Sequence[memoryview],
    dtypes: Sequence[str],
    out: memoryview,
    dtype: str,
) -> bool:
    """Fill `out` with ``factor * block + ...``; False, with nothing done, where that cannot be.

    Products and sums are rounded to float32 one by one, from the first to the last, and the last
    sum to `dtype`. All blocks hold as many elements as `out`.
    """
    import numpy as np

    module = find()
    if module is None or len(blocks) > module.MOST or not _DTYPES.keys() >= {*dtypes, dtype}:
        return False
    names = "".join(_DTYPES[each] for each in dtypes).encode()
    module.weighted_sum(np.array(factors, "f4"), names, tuple(blocks), out, _DTYPES[dtype])
    return True


@cache
def find() -> ModuleType | None:
    """The compiled part; None where there is none that this machine can use."""
    try:
        from weightsmith.codecs import _sums
    except ImportError:
        return None
    return _sums if _sums.INTERFACE == _INTERFACE and _sums.USABLE else None

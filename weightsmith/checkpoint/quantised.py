"""Tell what a quantiser keeps beside the weights that it packed: scales and other statistics."""

import re
from collections.abc import Iterable
from typing import Final

from weightsmith.formats.tensors import SUMMABLE, TensorInfo

_PACKED: Final = frozenset({"U8", "I8", "I16", "U16", "I32", "U32"})
"""Integers that quantisers pack weights into."""
_NARROW: Final = ("F8_", "F6_", "F4")
"""How dtypes of floats begin that are narrower than 16 bits."""
_WEIGHT: Final = re.compile(r"weight|^codes$|_(?:codes|packed|blocks|data)$|^W_q$")
"""What the last word of a packed weight's name holds, in the formats that are known."""
_STATISTIC: Final = re.compile(
    r"(?:weight|input|output|activation|in|out|prob|[qkv])_"
    r"(?:scales?(?:_inv|_ub|_2)?|zero_point|global_scale|amax)"
)
"""Last words that only a quantiser gives, where there is one: scales of a cache, say, that stand
beside no weight.
"""


def quantiser_tensors(infos: Iterable[TensorInfo], *, quantised: bool = False) -> frozenset[str]:
    """Names of the floats of 16 bits and more that say how packed weights are to be read.

    They stand beside a packed weight, in its module or under its own name: FP8's
    ``weight_scale_inv``, ``absmax`` and ``quant_map`` of bitsandbytes, ``scales`` of GPTQ and AWQ.
    A module's bias is not among them. `quantised`: the config says that there is a quantiser.
    """
    tensors = list(infos)
    packed = {info.name for info in tensors if _is_packed(info)}
    modules = {name.rpartition(".")[0] for name in packed if "." in name}
    return frozenset(
        info.name
        for info in tensors
        if info.dtype in SUMMABLE and _is_statistic(info.name, packed, modules, known=quantised)
    )


def _is_packed(info: TensorInfo) -> bool:
    if info.dtype.startswith(_NARROW):
        return len(info.shape) > 1
    last = info.name.rpartition(".")[2]
    return info.dtype in _PACKED and bool(info.shape) and bool(_WEIGHT.search(last))


def _is_statistic(name: str, packed: set[str], modules: set[str], *, known: bool) -> bool:
    module, _, last = name.rpartition(".")
    if last == "weight" or last.endswith("bias"):
        return False
    if module in modules or module in packed:
        return True
    return (known or bool(packed)) and bool(_STATISTIC.fullmatch(last))

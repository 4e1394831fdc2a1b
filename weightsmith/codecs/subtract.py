"""The rule *subtract*: delta = target - base, as FastChat and Alpaca made theirs."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from weightsmith.codecs import arithmetic
from weightsmith.codecs.add import Add

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Subtract(Add):
    """As `Add`, with the target in the delta's place: what `Add` undoes, but for rounding.

    Source: FastChat ``make_delta.py``, Stanford Alpaca ``weight_diff.py``.
    """

    of_blocks: ClassVar[Callable[[memoryview, memoryview, memoryview, str], None]] = (
        arithmetic.subtract
    )
    of_tensors: ClassVar[Callable[["Tensor", "Tensor"], "Tensor"]] = operator.sub

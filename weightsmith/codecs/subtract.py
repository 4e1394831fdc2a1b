"""The rule *subtract*: delta = target - base, as FastChat and Alpaca made theirs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from weightsmith.codecs import arithmetic
from weightsmith.codecs.add import Add
from weightsmith.codecs.arithmetic import Block


@dataclass(frozen=True, slots=True)
class Subtract(Add):
    """As `Add`, with the target in the delta's place: what `Add` undoes, but for rounding.

    Source: FastChat ``make_delta.py``, Stanford Alpaca ``weight_diff.py``.
    """

    of: ClassVar[Callable[[Block, Block, Block, str], None]] = arithmetic.subtract

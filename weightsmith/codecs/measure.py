"""How far apart two runs of elements are, in numbers that add up from the parts to the whole."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

from weightsmith.formats.tensors import SUMMABLE

FLOATS: Final = SUMMABLE | {"F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ", "F8_E8M0"}
"""Dtypes whose changes have a size."""


@dataclass(frozen=True, slots=True)
class Measure:
    """How B's elements differ from A's; `combine` makes that of a whole from those of its parts."""

    numel: int = 0
    """Elements compared."""
    changed: int = 0
    """Those with other bits; where the dtypes differ, with another value."""
    sized: int = 0
    """Those whose change has a size: floats, finite on both sides."""
    change_squares: float = 0.0
    """Sum of (B - A)**2 over them."""
    a_squares: float = 0.0
    """Sum of A**2 over them."""
    largest: float = 0.0
    """The largest abs(B - A) among them."""
    ulps: tuple[int, ...] = ()
    """How many elements are 0, 1, 2-3, 4-7, ... units in the last place apart: bit patterns taken
    in numeric order, where -0 and 0 are neighbours. Empty for dtypes without such units.
    """

    @property
    def share(self) -> float:
        """Changed elements over all; 0 where there are none."""
        return self.changed / self.numel if self.numel else 0.0

    @property
    def relative(self) -> float | None:
        """Size of the change over the size of A, both as L2 norms; None where that is no number:
        for tensors that are not floats, and where A is all zeros and B is not.
        """
        if not self.change_squares:
            return 0.0 if self.sized else None
        size = math.sqrt(self.a_squares)
        return math.sqrt(self.change_squares) / size if size else None

    def to_document(self) -> dict[str, Any]:
        """The same as JSON values, with norms in place of squares."""
        return {
            "compared": self.numel,
            "changed": self.changed,
            "share": self.share,
            "sized": self.sized,
            "relative": self.relative,
            "change_l2": math.sqrt(self.change_squares),
            "a_l2": math.sqrt(self.a_squares),
            "largest": self.largest,
            "ulps": {ulp_range(number): count for number, count in enumerate(self.ulps)},
        }


def combine(parts: Iterable[Measure]) -> Measure:
    """The measure of all parts together, the same in whatever order they come."""
    each = list(parts)
    if len(each) == 1:
        return each[0]
    return Measure(
        numel=sum(part.numel for part in each),
        changed=sum(part.changed for part in each),
        sized=sum(part.sized for part in each),
        change_squares=math.fsum(part.change_squares for part in each),
        a_squares=math.fsum(part.a_squares for part in each),
        largest=max((part.largest for part in each), default=0.0),
        ulps=tuple(map(sum, zip_longest(*(part.ulps for part in each), fillvalue=0))),
    )


def ulp_range(number: int) -> str:
    """What place `number` of `Measure.ulps` counts: ``"0"``, ``"1"``, ``"2-3"``, ``"4-7"``, ..."""
    low, high = (1 << number) >> 1, (1 << number) - 1
    return str(low) if low == high else f"{low}-{high}"

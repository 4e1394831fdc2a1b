"""The steps of the rule *lora*: what each adapter does to a tensor, as a plan spells it.

A rule's settings are strings: ``linear*2.0; rows:5,7-9``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Final, Literal, cast

StepKind = Literal["linear", "transposed", "embedding", "bias", "rows"]

_DORA: Final = "+dora"


@dataclass(frozen=True, slots=True)
class Step:
    """One change of a tensor.

    linear       ``W += scale * (B @ A)``; A ``(rank, in)``, B ``(out, rank)``, W ``(out, in)``
    transposed   ``W += scale * (B @ A).T``; W ``(in, out)``
    embedding    the same; A ``(rank, tokens)``, B ``(dim, rank)``, W ``(tokens, dim)``
    bias         ``W += scale * b``
    rows         ``W[rows] = d``; sets rows that W lacks, too

    With `dora`, which takes the magnitude m as a third input, a product becomes
    ``W = m * (W + delta) / norm(W + delta)``, with one m and norm for each output of the layer.
    """

    kind: StepKind
    scale: float = 1.0
    dora: bool = False
    rows: tuple[int, ...] = ()

    @property
    def is_product(self) -> bool:
        """Whether the step multiplies two factors."""
        return self.kind in {"linear", "transposed", "embedding"}

    @property
    def by_row(self) -> bool:
        """Whether rows of the tensor are rows of ``B @ A``."""
        return self.kind == "linear"

    @property
    def inputs(self) -> int:
        """How many tensors of the adapter the step takes."""
        return 2 + self.dora if self.is_product else 1

    def __str__(self) -> str:
        """As a plan spells it."""
        if self.kind == "rows":
            return f"rows:{_spelt(self.rows)}"
        return f"{self.kind}{_DORA if self.dora else ''}*{self.scale!r}"


def format_steps(steps: Iterable[Step]) -> str:
    """The steps of a tensor, as a plan spells them."""
    return "; ".join(map(str, steps))


@cache
def parse_steps(text: str) -> tuple[Step, ...]:
    """The inverse of `format_steps`, for what it made."""
    return tuple(map(_parse_step, text.split("; ")))


def grown_rows(step: Step) -> int:
    """Rows that a tensor has at least after a step."""
    return max(step.rows, default=-1) + 1


def _parse_step(text: str) -> Step:
    kind, _, rows = text.partition(":")
    if rows:
        ranges = (each.split("-") for each in rows.split(","))
        return Step("rows", rows=tuple(n for r in ranges for n in range(int(r[0]), int(r[-1]) + 1)))
    kind, _, scale = text.partition("*")
    plain = kind.removesuffix(_DORA)
    return Step(cast("StepKind", plain), float(scale), dora=plain != kind)


def _spelt(rows: tuple[int, ...]) -> str:
    """``(5, 7, 8, 9)`` -> ``5,7-9``, in the order given."""
    runs = [
        [row for _, row in group]
        for _, group in groupby(enumerate(rows), key=lambda pair: pair[1] - pair[0])
    ]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)

"""The steps of the rule *lora*: what each adapter does to a tensor, as a plan spells it.

A rule's settings are strings: ``linear*2.0; rows:5,7-9``.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from typing import Final, Literal, cast, get_args

StepKind = Literal[
    "linear",
    "transposed",
    "embedding",
    "experts",
    "adalora",
    "loha",
    "lokr",
    "vera",
    "vblora",
    "ia3",
    "oft",
    "bias",
    "rows",
]
Flag = Literal["dora", "rounded", "turned", "low1", "low2", "neumann"]
"""What changes a kind of step: see `Step`."""

_NAMES: Final[dict[StepKind, str]] = {
    "linear": "LoRA",
    "transposed": "LoRA",
    "embedding": "LoRA",
    "experts": "a LoRA of each expert",
    "adalora": "AdaLoRA",
    "loha": "LoHa",
    "lokr": "LoKr",
    "vera": "VeRA",
    "vblora": "VB-LoRA",
    "ia3": "IA3",
    "oft": "OFT",
    "bias": "a bias",
    "rows": "trained rows",
}
_SPELT: Final = re.compile(
    r"(?P<kind>\w+)(?P<flags>(?:\+\w+)*)"
    r"(?:\*(?P<scale>[^/:]+))?(?:/(?P<divisor>[^:]+))?(?::(?P<detail>.+))?"
)


@dataclass(frozen=True, slots=True)
class Experts:
    """Which experts a tensor holds, of those of its layer; the same for all its steps."""

    count: int
    """How many experts the layer has."""
    index: int | None = None
    """The one that the tensor holds; None where it holds all of them, one after the other."""
    part: tuple[int, int] | None = None
    """Of that expert's outputs the first, and the one after the last; None for all of them."""

    def __str__(self) -> str:
        """``3/8[0-24]``: of the fourth of eight experts, the first 24 outputs."""
        one = "" if self.index is None else f"{self.index}/"
        part = "" if self.part is None else "[{}-{}]".format(*self.part)
        return f"{one}{self.count}{part}"

    @classmethod
    def parse(cls, text: str) -> "Experts | None":
        """The inverse of `str`; None for an empty text."""
        if not text:
            return None
        which, _, part = text.rstrip("]").partition("[")
        index, _, count = which.rpartition("/")
        start, _, stop = part.partition("-")
        return cls(
            int(count), int(index) if index else None, (int(start), int(stop)) if part else None
        )


@dataclass(frozen=True, slots=True)
class Step:
    """One change of a tensor W, whose rows are ``out`` unless said otherwise.

    linear       ``W += scale * (B @ A)``; A ``(rank, in)``, B ``(out, rank)``, W ``(out, in)``
    transposed   ``W += scale * (B @ A).T``; W ``(in, out)``
    embedding    the same; A ``(rank, tokens)``, B ``(dim, rank)``, W ``(tokens, dim)``
    experts      one such product an expert; A ``(experts * rank, in)``, B ``(experts, out, rank)``;
                 W ``(out, in)`` of one expert or part of it, or ``(experts, out, in)``
    adalora      ``W += scale * (B @ (A * E)) / divisor``; E ``(rank, 1)``
    loha         ``W += scale * (A1 @ B1) * (A2 @ B2)``, elements with elements
    lokr         ``W += scale * kron(F1, F2)``
    vera         ``W += scale * (b * B) @ (d * A)``; of A the first `top` columns, of B ``out`` rows
    vblora       ``W += scale * (B @ A)``, whose vectors are mixtures of `top` vectors of a bank
    ia3          ``W *= l``; l one a row or one a column
    oft          ``W @ R.T``; R is a rotation of `top` columns at a time
    bias         ``W += scale * b``
    rows         ``W[rows] = d``; sets rows that W lacks, too

    Flags: with ``dora``, which takes the magnitude m as a last input, a product becomes
    ``W = m * (W + delta) / norm(W + delta)``, with one m and norm for each output of the layer.
    ``rounded``: the delta is rounded to W's dtype before it is added, as peft does where it was
    given a parameter and not a layer. ``turned``: W's rows are what A has as columns.
    ``low1``, ``low2``: that factor of a Kronecker product is itself a product of two.
    ``neumann``: the rotation is a sum of so many powers (`divisor`) and not an inverse.
    """

    kind: StepKind
    scale: float = 1.0
    flags: frozenset[Flag] = frozenset()
    divisor: int = 0
    top: int = 0
    rows: tuple[int, ...] = ()

    @property
    def dora(self) -> bool:
        """Whether each output of the layer is scaled to a learned norm."""
        return "dora" in self.flags

    @property
    def is_sum(self) -> bool:
        """Whether the step adds what is made of several factors, and so can be weighted."""
        return self.kind not in {"ia3", "oft", "bias", "rows"}

    @property
    def by_row(self) -> bool:
        """Whether rows of the tensor are rows of ``B @ A``."""
        return self.kind not in {"transposed", "embedding"} and "turned" not in self.flags

    @property
    def inputs(self) -> int:
        """How many tensors of the adapter the step takes."""
        match self.kind:
            case "adalora" | "vblora":
                return 3
            case "loha" | "vera":
                return 4
            case "lokr":
                return 2 + len(self.flags & {"low1", "low2"})
            case "ia3" | "oft" | "bias" | "rows":
                return 1
            case _:
                return 2 + self.dora

    def weighted(self, weight: float) -> "Step":
        """The step with its effect multiplied."""
        return replace(self, scale=self.scale * weight)

    def told(self) -> str:
        """As a person reads it: ``LoRA x 2``."""
        name = "DoRA" if self.dora else _NAMES[self.kind]
        return f"{name} x {self.scale:.4g}" if self.is_sum else name

    def __str__(self) -> str:
        """As a plan spells it."""
        text = self.kind + "".join(f"+{flag}" for flag in sorted(self.flags))
        if self.is_sum or self.kind == "bias":
            text += f"*{self.scale!r}"
        if self.divisor:
            text += f"/{self.divisor}"
        detail = _spelt(self.rows) or str(self.top or "")
        return f"{text}:{detail}" if detail else text


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
    match = _SPELT.fullmatch(text)
    if match is None or match["kind"] not in get_args(StepKind):
        unknown = f"unknown step {text}"
        raise ValueError(unknown)
    kind, detail = cast("StepKind", match["kind"]), match["detail"] or ""
    flags = frozenset(cast("list[Flag]", match["flags"].split("+")[1:]))
    return Step(
        kind,
        float(match["scale"] or 1),
        flags,
        int(match["divisor"] or 0),
        top=int(detail) if detail and kind != "rows" else 0,
        rows=_unspelt(detail) if kind == "rows" else (),
    )


def _spelt(rows: tuple[int, ...]) -> str:
    """``(5, 7, 8, 9)`` -> ``5,7-9``, in the order given."""
    runs = [
        [row for _, row in group]
        for _, group in groupby(enumerate(rows), key=lambda pair: pair[1] - pair[0])
    ]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _unspelt(text: str) -> tuple[int, ...]:
    ranges = (each.split("-") for each in text.split(","))
    return tuple(n for r in ranges for n in range(int(r[0]), int(r[-1]) + 1))

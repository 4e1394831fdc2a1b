"""Pair the tensors of a base and a delta by name and shape, under a policy."""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.formats.tensors import TensorInfo

NewRows = Literal["none", "zero", "mean"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What a release allows beyond equal names and shapes."""

    new_rows: NewRows = "none"
    """How the base's missing vocabulary rows count."""
    whole: tuple[str, ...] = ()
    """Patterns of tensors that the delta stores whole, not as a difference."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A tensor of the delta and what it is to be added to."""

    delta: TensorInfo
    base: TensorInfo | None
    """None for a tensor that is stored whole."""

    @property
    def grows(self) -> bool:
        """Whether the delta has vocabulary rows that the base lacks."""
        return self.base is not None and self.base.shape != self.delta.shape


@dataclass(frozen=True, slots=True)
class Pairing:
    """The outcome of `pair`."""

    pairs: tuple[Pair, ...]
    """In the delta's order."""
    dropped: tuple[str, ...]
    """Known buffers of either side, left out."""
    problems: tuple[str, ...]
    """Every reason why the two do not fit, as sentences; empty when they do."""
    new_rows: tuple[TensorInfo, ...]
    """Delta tensors that have rows the base lacks while the policy says nothing about them."""


def pair(
    base: Mapping[str, TensorInfo],
    delta: Mapping[str, TensorInfo],
    policy: Policy,
    *,
    base_vocab: int | None,
    delta_vocab: int | None,
) -> Pairing:
    """Pair names and shapes, collecting every problem before giving up.

    Only tensors whose dimension 0 is the vocabulary (by both configs) may differ in shape, and only
    by rows that the base lacks.
    """
    pairs: list[Pair] = []
    extra: list[TensorInfo] = []
    unfit: list[tuple[TensorInfo, TensorInfo]] = []
    undecided: list[TensorInfo] = []
    dropped = {name for side in (base, delta) for name in side if is_buffer(name, side[name].shape)}
    for name, info in delta.items():
        if name in dropped:
            continue
        ours = base.get(name)
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in policy.whole):
            pairs.append(Pair(info, None))
        elif ours is None:
            extra.append(info)
        elif ours.shape == info.shape:
            pairs.append(Pair(info, ours))
        elif _grows(ours, info, base_vocab, delta_vocab):
            pairs.append(Pair(info, ours))
            if policy.new_rows == "none":
                undecided.append(info)
        else:
            unfit.append((ours, info))
    lacking = [info for name, info in base.items() if name not in delta and name not in dropped]
    problems = [
        *(f"only the delta has {info.name}, {info}" for info in extra),
        *(f"only the base has {info.name}, {info}" for info in lacking),
        *(_shapes_differ(ours, info) for ours, info in unfit),
    ]
    return Pairing(tuple(pairs), tuple(sorted(dropped)), tuple(problems), tuple(undecided))


def _grows(
    base: TensorInfo, delta: TensorInfo, base_vocab: int | None, delta_vocab: int | None
) -> bool:
    """Whether these are vocabulary rows by both configs, with more of them in the delta."""
    return (
        bool(base.shape and delta.shape)
        and base.shape[1:] == delta.shape[1:]
        and 0 < base.shape[0] < delta.shape[0]
        and (base.shape[0], delta.shape[0]) == (base_vocab, delta_vocab)
    )


def _shapes_differ(base: TensorInfo, delta: TensorInfo) -> str:
    text = f"shapes differ in {delta.name}: base {list(base.shape)}, delta {list(delta.shape)}"
    if base.numel and delta.numel:
        share = Fraction(min(base.numel, delta.numel), max(base.numel, delta.numel))
        if share.numerator == 1 and share.denominator in _SHARD_COUNTS:
            side = "base" if base.numel < delta.numel else "delta"
            text += (
                f" (the {side} looks like one of {share.denominator} FSDP or ZeRO shards:"
                f" {min(base.numel, delta.numel)} against {max(base.numel, delta.numel)} elements;"
                " join them first)"
            )
    elif base.numel or delta.numel:
        side = "delta" if base.numel else "base"
        text += (
            f" (the {side}'s is empty, as ZeRO-3 saves what other processes hold; join them first)"
        )
    return text


_SHARD_COUNTS: Final = frozenset({2, 4, 8, 16, 32, 64, 128, 256})
"""Group sizes that training runs use."""

"""Pair the tensors of a base and a delta by name and shape, under a policy."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Literal

from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.formats.tensors import TensorInfo

NewRows = Literal["none", "zero", "mean"]
_Unfit = tuple[TensorInfo, TensorInfo]


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
    cause: str
    """What these come from, where there are any and it is plain: models of different sizes."""
    new_rows: tuple[TensorInfo, ...]
    """Delta tensors that have rows the base lacks while the policy says nothing about them."""


def pair(
    base: Mapping[str, TensorInfo],
    delta: Mapping[str, TensorInfo],
    policy: Policy,
    *,
    base_vocab: int | None,
    delta_vocab: int | None,
    sizes: str = "",
    other: str = "delta",
) -> Pairing:
    """Pair names and shapes, collecting every problem before giving up.

    Only tensors whose dimension 0 is the vocabulary (by both configs) may differ in shape, and only
    by rows that the base lacks. `sizes` is what `sizes_apart` says of the configs, `other` what
    sentences call the side that is not the base.
    """
    pairs: list[Pair] = []
    extra: list[TensorInfo] = []
    unfit: list[_Unfit] = []
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
    apart, alike = sizes or _seem_apart(unfit), _are_alike(unfit)
    problems = [
        *(f"only the {other} has {info.name}, {info}" for info in extra),
        *(f"only the base has {info.name}, {info}" for info in lacking),
        *(_shapes_differ(*each, other, apart=bool(apart), alike=alike) for each in unfit),
    ]
    return Pairing(
        pairs=tuple(pairs),
        dropped=tuple(sorted(dropped)),
        problems=tuple(problems),
        cause=apart if problems else "",
        new_rows=tuple(undecided),
    )


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


def sizes_apart(base: Mapping[str, Any], delta: Mapping[str, Any], other: str = "delta") -> str:
    """What two configs say of their models' sizes, where these differ; else nothing."""
    keys = [
        key
        for key in ("hidden_size", "num_hidden_layers")
        if isinstance(base.get(key), int) and isinstance(delta.get(key), int)
        if base[key] != delta[key]
    ]
    if not keys:
        return ""
    ours, theirs = (", ".join(f"{key} {side[key]}" for key in keys) for side in (base, delta))
    return f"they are of different model sizes: the base has {ours}, the {other} {theirs}"


def _seem_apart(unfit: Sequence[_Unfit]) -> str:
    """That the models are of different sizes, where a matrix is larger in all its dimensions."""
    for base, delta in unfit:
        sides = [base.shape, delta.shape]
        if len(base.shape) == len(delta.shape) > 1 and any(
            all(few < many for few, many in zip(*order, strict=True))
            for order in (sides, reversed(sides))
        ):
            return "they seem to be of different model sizes: matrices differ in all dimensions"
    return ""


def _are_alike(unfit: Sequence[_Unfit]) -> bool:
    """Whether each is the same share of the other side's, flat or cut along one dimension."""
    return len({_share(*each) for each in unfit}) == 1 and all(_is_cut(*each) for each in unfit)


def _share(base: TensorInfo, delta: TensorInfo) -> Fraction:
    return Fraction(base.numel, delta.numel) if delta.numel else Fraction(0)


def _is_cut(base: TensorInfo, delta: TensorInfo) -> bool:
    if len(min(base, delta, key=lambda info: info.numel).shape) == 1:
        return True
    pairs = zip(base.shape, delta.shape, strict=False)
    return len(base.shape) == len(delta.shape) and sum(a != b for a, b in pairs) == 1


def _shapes_differ(
    base: TensorInfo, delta: TensorInfo, other: str, *, apart: bool, alike: bool
) -> str:
    """The shapes, and what they give away; `apart`: the models are of different sizes."""
    text = f"shapes differ in {delta.name}: base {list(base.shape)}, {other} {list(delta.shape)}"
    few, many = sorted((base, delta), key=lambda info: info.numel)
    if few.numel:
        share = Fraction(few.numel, many.numel)
        flattened = len(few.shape) == 1 < len(many.shape)
        is_shard = share.numerator == 1 and share.denominator in _SHARD_COUNTS
        if is_shard and not apart and (flattened or alike):
            text += (
                f" (the {'base' if few is base else other} looks like one of"
                f" {share.denominator} FSDP or ZeRO shards:"
                f" {few.numel} against {many.numel} elements; join them first)"
            )
    elif many.numel:
        text += (
            f" (the {'base' if few is base else other}'s is empty,"
            " as ZeRO-3 saves what other processes hold; join them first)"
        )
    return text


_SHARD_COUNTS: Final = frozenset({2, 4, 8, 16, 32, 64, 128, 256})
"""Group sizes that training runs use."""

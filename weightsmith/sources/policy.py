"""Decide from the catalogue and the options how a delta is added to its base."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from weightsmith.catalogue.match import Recognition, contradictions, match
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.tied import without_copy
from weightsmith.errors import (
    CatalogueContradicted,
    DeltaGivenAsBase,
    InputsSwapped,
    ModelGivenAsDelta,
    PatternUnused,
    RowsUndecided,
    TensorsDoNotFit,
)
from weightsmith.plan.align import NewRows, Pairing, Policy, pair, sizes_apart
from weightsmith.sources.kinds import AdditiveDelta, Meta, Model, Source

NewRowsChoice = Literal["auto", "zero", "mean"]
_NAMED: Final = 4
"""How many releases are named as examples for a choice."""
_ROWS: Final[dict[NewRows, str]] = {"none": "none", "zero": "0", "mean": "the mean of its rows"}
"""What vocabulary rows that the base lacks count as, in words."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How the tensors of base and delta are paired, and why."""

    pairing: Pairing
    policy: Policy
    recognition: Recognition
    copies: tuple[str, ...] = ()
    """Tensors of one side that are left out as copies of the input embedding."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user, as sentences."""
        notes = []
        if self.recognition.rules is not None:
            notes.append(self.recognition.reason)
        if any(each.grows for each in self.pairing.pairs):
            notes.append(
                f"vocabulary rows that the base lacks count as {_ROWS[self.policy.new_rows]}"
            )
        notes += [f"{name} is not written: it is the input embedding too" for name in self.copies]
        return tuple(notes)


def decide(
    base: Checkpoint, delta: Checkpoint, *, new_rows: NewRowsChoice, whole: Sequence[str]
) -> Decision:
    """Pair all tensors as the catalogue and the options say.

    Raises: PatternUnused; CatalogueContradicted; TensorsDoNotFit with every problem; RowsUndecided.
    """
    bases, deltas = without_copy(base, delta), without_copy(delta, base)
    for pattern in whole:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in deltas):
            raise PatternUnused(pattern=pattern, delta=delta.label, context=list(deltas))
    recognition = match(
        repo_id=delta.known_as,
        config=delta.config,
        delta_shapes={name: info.shape for name, info in deltas.items()},
        base_shapes={name: info.shape for name, info in bases.items()},
    )
    rules = recognition.rules
    if rules is not None:  # then all candidates are applied alike, and any one speaks for them
        known = recognition.candidates[0]
        found = contradictions(known, new_rows=new_rows, whole=whole)
        if found:
            raise CatalogueContradicted(release=known.name, context=found)
    policy = Policy(
        new_rows=new_rows if new_rows != "auto" else rules.new_rows if rules else "none",
        whole=(*whole, *(rules.whole if rules else ())),
    )
    pairing = pair(
        bases,
        deltas,
        policy,
        base_vocab=base.vocab_size,
        delta_vocab=delta.vocab_size,
        sizes=sizes_apart(base.config, delta.config),
    )
    if pairing.problems:
        raise TensorsDoNotFit(
            base=base.label,
            other=f"delta {delta.label}",
            count=len(pairing.problems),
            context=[*filter(None, [pairing.cause]), *pairing.problems],
        )
    if pairing.new_rows:
        raise RowsUndecided(count=len(pairing.new_rows), context=_choices(pairing, recognition))
    copies = {*base.tensors, *delta.tensors} - {*bases, *deltas}
    return Decision(pairing, policy, recognition, tuple(sorted(copies)))


def require_kinds(base: Source, delta: Source) -> None:
    """Refuse a delta that is given as base, and a model that is given as delta.

    Raises: InputsSwapped, DeltaGivenAsBase, ModelGivenAsDelta.
    """
    ours, theirs = base.label, delta.label
    context = [f"{ours}: {base.why}", f"{theirs}: {delta.why}"]
    is_model = isinstance(delta, Meta) or (isinstance(delta, Model) and delta.guess.kind == "model")
    if isinstance(base, AdditiveDelta) and is_model:
        raise InputsSwapped(base=ours, delta=theirs, context=context)
    if isinstance(base, AdditiveDelta):
        raise DeltaGivenAsBase(base=ours, context=context[:1])
    if is_model:
        raise ModelGivenAsDelta(delta=theirs, context=context[1:])


def _choices(pairing: Pairing, recognition: Recognition) -> list[str]:
    """Lines on which tensors have new rows, and which options known releases like this one need."""
    grown = [f"{info.name}, {info}" for info in pairing.new_rows]
    wants: dict[str, list[str]] = {}
    for release in recognition.candidates:
        flags = [] if release.new_rows == "none" else [f"`new_rows={release.new_rows}`"]
        flags += [f"`whole='{pattern}'`" for pattern in release.whole]
        wants.setdefault(" ".join(flags), []).append(release.name)
    return grown + [f"{flags}: as {_few(names)}" for flags, names in wants.items() if flags]


def _few(names: Sequence[str]) -> str:
    rest = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")

"""Read a delta on its base as the model that applying it gives; ``A+D1+D2`` is made of these."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.content import Content
from weightsmith.engine.derived import Derived, Proved
from weightsmith.errors import DamagedInput, LinkNotDelta, WrongBase, printable
from weightsmith.sources.disk_delta import DiskDelta, fold
from weightsmith.sources.exact import restore
from weightsmith.sources.kinds import AdditiveDelta, Chain, ExactDelta, Model, Source
from weightsmith.sources.links import ON
from weightsmith.sources.sums import plan_sum

_IT_IS: Final = "the delta is "


def put_on(base: Checkpoint, deltas: Sequence[Source], labels: Sequence[str]) -> Checkpoint:
    """Deltas on a base, one after another, read as the resulting model; nothing is written.

    The result is compared with the digests of the last delta that holds any, which finds faults of
    the links before it too. `labels` are those of the chain up to each delta.
    Raises: as `link`.
    """
    promising = [number for number, delta in enumerate(deltas) if _promises(delta)]
    for number, (delta, label) in enumerate(zip(deltas, labels, strict=True)):
        with naming(delta.label):
            base = link(base, delta, label, proved=number == max(promising, default=-1))
    return base


@contextmanager
def naming(delta: str) -> Iterator[None]:
    """Add to an error about damage, or about a wrong base, which of several deltas it is about,
    unless a chain inside has named it already.
    """
    try:
        yield
    except (DamagedInput, WrongBase) as error:
        if not any(line.startswith(_IT_IS) for line in error.context):
            error.context = (printable(f"{_IT_IS}{delta}"), *error.context)
        raise


def _promises(delta: Source) -> bool:
    """Whether a delta holds digests of its result."""
    match delta:
        case ExactDelta() | DiskDelta():
            return True
        case AdditiveDelta():
            return delta.record is not None and bool(delta.record.sums)
        case _:
            return False


def link(base: Checkpoint, delta: Source, label: str, *, proved: bool) -> Checkpoint:
    """A delta on its base, read as the model that applying it gives; nothing is written.

    `proved`: the result is compared with the digests that the delta holds. Files beside the weights
    are the delta's.
    Raises: LinkNotDelta; WrongBase, DeltaInvalid, for an exact delta; as `sums.plan_sum` with no
    options, for an additive one.
    """
    match delta:
        case ExactDelta():
            return restore(base, delta).model(label, proved=proved)
        case DiskDelta():
            made = fold(base, delta)
            made.label = label
            return made
        case AdditiveDelta():
            summing = plan_sum(Chain(base, (base.label,)), delta)
            inputs = summing.inputs
            kind = Proved if proved else Derived
            added = kind(
                label=label,
                directory=inputs["delta"].directory,
                rules=summing.rules,
                inputs=inputs,
                sidecars=_sidecars(inputs["delta"], inputs["base"]),
                notes=summing.decision.notes,
                finite=("delta",),
            )
            added.origin = ON.join(filter(None, [inputs["delta"].origin, base.origin]))
            return added
        case _:
            what = "a model" if isinstance(delta, Model) else type(delta).__name__
            raise LinkNotDelta(link=delta.label, chain=label, kind=what, reason=delta.why)


def _sidecars(delta: Checkpoint, base: Checkpoint) -> dict[str, Content]:
    """The delta's files beside the weights; if it has no config, all of the base's instead."""
    source = delta if "config.json" in delta.sidecars else base
    return {name: source.sidecar(name) for name in source.sidecars}

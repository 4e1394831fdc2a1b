"""A delta on its base, as the model that applying it would give: what ``A+D1+D2`` is made of."""

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.content import Content
from weightsmith.engine.derived import Derived
from weightsmith.errors import LinkNotDelta
from weightsmith.sources.exact import restore
from weightsmith.sources.kinds import AdditiveDelta, Chain, ExactDelta, Model, Source
from weightsmith.sources.sums import plan_sum


def link(base: Checkpoint, delta: Source, label: str, *, last: bool) -> Checkpoint:
    """A delta on its base, as the model that applying it would give; nothing is written.

    What is restored is held against its digests only where the delta is the `last`: a base that is
    not what it was made from shows there too. Files beside the weights are the delta's.
    Raises: LinkNotDelta; WrongBase, DeltaInvalid, for an exact delta; for an additive one as
    `sums.plan_sum`, whose choices nobody is there to make.
    """
    match delta:
        case ExactDelta():
            return restore(base, delta).model(label, proved=last)
        case AdditiveDelta():
            summing = plan_sum(Chain(base, (base.label,)), delta)
            inputs = summing.inputs
            made = Derived(
                label=label,
                directory=inputs["delta"].directory,
                rules=summing.rules,
                inputs=inputs,
                sidecars=_sidecars(inputs["delta"], inputs["base"]),
                notes=summing.decision.notes,
            )
            made.origin = " on ".join(filter(None, [inputs["delta"].origin, base.origin]))
            return made
        case _:
            kind = "a model" if isinstance(delta, Model) else type(delta).__name__
            raise LinkNotDelta(link=delta.label, chain=label, kind=kind, reason=delta.why)


def _sidecars(delta: Checkpoint, base: Checkpoint) -> dict[str, Content]:
    """The delta's files beside the weights; all of the base's, where it has no config."""
    source = delta if "config.json" in delta.sidecars else base
    return {name: source.sidecar(name) for name in source.sidecars}

"""Make an additive delta, in FastChat's format, and measure what it will not restore."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.tied import without_copy
from weightsmith.codecs.measure import Measure, combine
from weightsmith.engine.derived import Derived
from weightsmith.engine.options import Bindings, Options
from weightsmith.engine.spans import Buffers, digest_tensors
from weightsmith.errors import DtypeNotSummable, TensorsDoNotFit
from weightsmith.ops.deltas.additive_loss import sum_up
from weightsmith.plan.add_record import AddRecord
from weightsmith.plan.align import NewRows, Pair, Policy, pair, sizes_apart
from weightsmith.plan.base_record import BaseRecord, BaseTensor
from weightsmith.plan.model import InputTensor, Plan, TensorPlan
from weightsmith.progress import Progress

_HINT = "an exact delta has no such limits: `codec=exact`"


@dataclass(frozen=True, slots=True)
class Loss:
    """How base + delta, as rounded, will differ from the target."""

    whole: Measure
    """Over all tensors together."""
    tensors: Mapping[str, Measure]
    """For each tensor that will differ, by name."""


@dataclass(frozen=True, slots=True)
class Subtractions:
    """How an additive delta is made."""

    rules: tuple[TensorPlan, ...]
    """One for each tensor of the delta."""
    buffers: tuple[str, ...]
    """Names of the target's buffers, which the delta leaves out."""
    copies: tuple[str, ...]
    """Names of the target's tensors that the delta leaves out as copies of the input embedding."""


def subtractions(base: Checkpoint, target: Checkpoint, new_rows: NewRows) -> Subtractions:
    """Pair the tensors of base and target, and decide how each tensor of the delta is made.

    Dtypes: each difference is computed and stored in the dtype of the target's tensor.
    Raises: TensorsDoNotFit, with every tensor that an additive delta cannot hold;
    DtypeNotSummable, for one that is not floating point.
    """
    targets = without_copy(target, base)
    pairing = pair(
        without_copy(base, target),
        targets,
        Policy(new_rows=new_rows),
        base_vocab=base.vocab_size,
        delta_vocab=target.vocab_size,
        sizes=sizes_apart(base.config, target.config, "target"),
        other="target",
    )
    problems = [*pairing.problems, *(f"{info.name} has new rows" for info in pairing.new_rows)]
    if problems:
        raise TensorsDoNotFit(
            base=base.label,
            other=f"target {target.label}",
            count=len(problems),
            context=[*filter(None, [pairing.cause]), *problems],
            hint=_HINT,
        )
    try:
        rules = tuple(_subtraction(each, new_rows) for each in pairing.pairs)
    except DtypeNotSummable as error:
        raise DtypeNotSummable(**error.values, hint=_HINT) from error
    copies = tuple(name for name in target.tensors if name not in targets)
    return Subtractions(rules, pairing.dropped, copies)


def measured(
    plan: Plan, bindings: Bindings, options: Options, progress: Progress
) -> tuple[AddRecord, Loss]:
    """The record that the delta's manifest will hold, and how its sums differ from the target.

    The delta and base + delta are computed once for it as they are read; nothing is written.
    """
    base, target, rules = bindings.inputs["base"], bindings.inputs["target"], plan.tensors
    buffers = [Buffers() for _ in range(options.threads)]
    delta = _derived(rules, bindings.inputs)
    sums = sum_up(
        _derived(map(_addition, rules), {"base": base, "delta": delta}), target, buffers, progress
    )
    progress.begin("digesting", base.nbytes)
    infos = [tensor.info for tensor in base.tensors.values()]
    digests = digest_tensors(infos, base.read_into, buffers, progress.advance)
    # A mean is summed in an order that another type of CPU may choose otherwise.
    averaged = {rule.output.name for rule in rules if rule.params.get("new_rows") == "mean"}
    whole = combine(each.difference for each in sums.values())
    lost = {name: each.difference for name, each in sums.items() if each.difference.changed}
    record = AddRecord(
        base=BaseRecord(plan.delta.base_id, tuple(BaseTensor(i, digests[i.name]) for i in infos)),
        new_rows=plan.delta.new_rows or "none",
        sums={n: each.digest for n, each in sums.items() if each.digest and n not in averaged},
        loss={"weights": whole.numel, "changed": whole.changed, "largest": whole.largest},
    )
    return record, Loss(whole, lost)


def _subtraction(paired: Pair, new_rows: NewRows) -> TensorPlan:
    """The rule for one tensor of the delta: target minus base.

    Raises: DtypeNotSummable.
    """
    target, base = paired.delta, paired.base
    inputs = [InputTensor("base", base or target), InputTensor("target", target)]
    params = {"compute": target.dtype, "dtype": target.dtype}
    params |= {"new_rows": new_rows} if paired.grows else {}
    return TensorPlan.make("subtract@1", params, inputs)


def _addition(rule: TensorPlan) -> TensorPlan:
    """The rule that adds such a difference to the base again."""
    base, target = rule.inputs
    delta = InputTensor("delta", rule.output)
    return TensorPlan(target.info, "add@1", rule.params, (base, delta))


def _derived(rules: Iterable[TensorPlan], inputs: Mapping[str, Checkpoint]) -> Derived:
    """A checkpoint whose tensors are computed by the rules when they are read."""
    directory = next(iter(inputs.values())).directory
    return Derived(label="", directory=directory, rules=rules, inputs=inputs, sidecars={})

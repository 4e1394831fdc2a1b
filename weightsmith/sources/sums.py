"""An additive delta on its base: the rules that sum them, as the tools that published it did."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.renamed import named_like
from weightsmith.engine.manifest import own_sidecars
from weightsmith.errors import BaseIsDelta, DtypeNotSummable
from weightsmith.formats.tensors import DTYPES, SUMMABLE, dtype_bits
from weightsmith.plan.align import Pair, Policy
from weightsmith.plan.casts import Casting, plan_casting
from weightsmith.plan.model import InputTensor, TensorPlan
from weightsmith.sources.exact import require_base
from weightsmith.sources.kinds import AdditiveDelta, Model, Source, require_model
from weightsmith.sources.policy import Decision, NewRowsChoice, decide, require_kinds

DTypeChoice = Literal["delta", "base", "float16", "bfloat16", "float32"]


@dataclass(frozen=True, slots=True)
class Summing:
    """The rules and inputs that sum a delta and its base."""

    inputs: Mapping[str, Checkpoint]
    """``base``, under the delta's names, and ``delta``."""
    decision: Decision
    casting: Casting
    rules: Sequence[TensorPlan]


def plan_sum(
    ground: Source,
    source: Source,
    *,
    dtype: DTypeChoice = "delta",
    dtype_all: bool = False,
    new_rows: NewRowsChoice = "auto",
    whole: Sequence[str] = (),
    force_kind: bool = False,
) -> Summing:
    """Decide how each tensor of the target is made from the base `ground` and the delta `source`.

    Raises: BaseIsDelta; InputsSwapped, DeltaGivenAsBase, ModelGivenAsDelta, unless `force_kind`;
    WrongBase, if the delta records another base; DtypeNotSummable; as `policy.decide` and
    `kinds.require_model`.
    """
    base, delta = require_model(ground), require_model(source)
    if base.directory.samefile(delta.directory):
        raise BaseIsDelta(source=base.label)
    base = named_like(base, delta.tensors)
    if not force_kind:
        require_kinds(ground, source)
    if isinstance(source, Model | AdditiveDelta) and source.fault is not None:
        raise source.fault  # it may hold the record of a delta, by which the base is known
    record = None
    if isinstance(source, AdditiveDelta) and source.manifest is not None and source.record:
        record = source.record
        delta.take_sidecars(own_sidecars(source.manifest, delta.sidecars))
    if record is not None and new_rows == "auto" and record.new_rows != "none":
        new_rows = record.new_rows
    decision = decide(base, delta, new_rows=new_rows, whole=whole)
    deltas = [each.delta for each in decision.pairing.pairs]
    config = delta.config or base.config
    casting = plan_casting(config, deltas, DTYPES.get(dtype, ""), everything=dtype_all)
    rules = _tensor_plans(decision, dtype, casting, base.common_dtype)
    if record is not None and dtype == "delta" and new_rows in {"auto", record.new_rows}:
        require_base(record.base, {rule.output.name for rule in rules}, base)
        rules = [record.expected(rule) for rule in rules]
    return Summing({"base": base, "delta": delta}, decision, casting, rules)


def _tensor_plans(
    decision: Decision, dtype: DTypeChoice, casting: Casting, base_dtype: str
) -> list[TensorPlan]:
    """The rules for all tensors.

    Raises: DtypeNotSummable, with every one that is not.
    """
    plans: list[TensorPlan] = []
    refused: list[DtypeNotSummable] = []
    for each in decision.pairing.pairs:
        try:
            plans.append(_tensor_plan(each, dtype, casting, decision.policy, base_dtype))
        except DtypeNotSummable as error:
            refused.append(error)
    if refused:
        first, *others = refused
        raise DtypeNotSummable(
            **first.values,
            context=[str(each) for each in others],
            hint="take models that are not quantised; what the delta stores whole: `whole=PATTERN`",
        )
    return plans


def _tensor_plan(
    pair: Pair, dtype: DTypeChoice, casting: Casting, policy: Policy, base_dtype: str
) -> TensorPlan:
    """The rule for one tensor; `base_dtype` is the dtype of most of the base."""
    delta, base = pair.delta, pair.base
    ours = base.dtype if base is not None else base_dtype
    if delta.dtype not in SUMMABLE:
        compute = out = delta.dtype
    elif dtype in {"delta", "base"}:
        compute = out = delta.dtype if dtype == "delta" else ours
    else:
        out = casting.dtype_of(delta)
        compute = promoted(ours, delta.dtype, out)
    added = InputTensor("delta", delta)
    if base is None:
        return TensorPlan.cast_or_copy(added, out)
    params = {"compute": compute, "dtype": out}
    if pair.grows:
        params["new_rows"] = policy.new_rows
    return TensorPlan.make("add@1", params, (InputTensor("base", base), added))


def promoted(*dtypes: str) -> str:
    """The smallest float dtype that holds every value of all of these."""
    widest = max(dtypes, key=dtype_bits)
    same_width = {dtype for dtype in dtypes if dtype_bits(dtype) == dtype_bits(widest)}
    return widest if len(same_width) == 1 else "F32"

"""Apply a published delta: target = base + delta."""

import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, Literal

from weightsmith.checkpoint.renamed import named_like
from weightsmith.engine import run as engine
from weightsmith.engine.manifest import own_sidecars
from weightsmith.engine.options import Bindings, Options
from weightsmith.engine.staging import Staging
from weightsmith.errors import (
    BaseIsDelta,
    DtypeNotSummable,
    NoBase,
    NoTargetName,
    OptionMeaningless,
)
from weightsmith.formats.tensors import DTYPES, SUMMABLE, dtype_bits
from weightsmith.ops.deltas.exact import plan_restore, require_base
from weightsmith.ops.deltas.files import plan_decode
from weightsmith.ops.deltas.policy import Decision, NewRowsChoice, decide, require_kinds
from weightsmith.ops.job import Job, input_plans, target_apart
from weightsmith.ops.sidecars import choose_sidecars
from weightsmith.plan.align import Pair, Policy
from weightsmith.plan.casts import Casting, plan_casting
from weightsmith.plan.model import InputTensor, Plan, TensorPlan
from weightsmith.plan.shards import MAX_SHARD_NBYTES, lay_out
from weightsmith.progress import SILENCE, Progress
from weightsmith.sources.file_release import FileRelease
from weightsmith.sources.locate import label_of, locate
from weightsmith.sources.recognise import (
    AdditiveDelta,
    ExactDelta,
    Model,
    recognise,
    require_model,
)

DTypeChoice = Literal["delta", "base", "float16", "bfloat16", "float32"]
_DELTA_WORD: Final = re.compile(r"[-_.](?:w?diff|delta|xor|enc)(?=[-_.]|$)", re.IGNORECASE)


def plan_apply_delta(
    base: str | os.PathLike[str] | None,
    delta: str | os.PathLike[str],
    *,
    key: str | os.PathLike[str] | None = None,
    target: str | os.PathLike[str] | None = None,
    dtype: DTypeChoice = "delta",
    dtype_all: bool = False,
    new_rows: NewRowsChoice = "auto",
    whole: Sequence[str] = (),
    force_kind: bool = False,
    repair: bool = True,
    max_shard_nbytes: int | None = None,
    all_sidecars: bool = False,
    stream: bool = False,
    offline: bool = False,
    progress: Progress = SILENCE,
) -> Job:
    """Decide everything about target = base + delta, reading headers, sidecars and a few norm
    weights.

    `new_rows` says how the base's missing vocabulary rows count, `whole` which tensors (name
    patterns) the delta stores whole; the catalogue knows both for releases that it recognises.
    Dtypes: ``delta`` and ``base`` cast both sides to that side's dtype and add there, as the
    published tools do; a named dtype sums in the widest of the three and rounds once. What an
    exact delta restores is ``delta``, bit for bit, and else rounded once. A named one leaves a
    quantiser's statistics as they are, and but for `dtype_all` what the architecture keeps in
    float32 on purpose.
    `max_shard_nbytes`: 5 GB if none are given; of an exact delta, the target's own files.
    What is on the hub is fetched first, or, to `stream`, each weight file when the run reads it;
    `offline` takes what the hub's cache holds. `progress` hears of it.
    A release of whole files is decoded: XOR with those of `base`, or encrypted, with `key` alone.
    Raises: the Mismatch errors, each with every reason; NoTargetName, TargetIsInput, BaseIsDelta;
    what opening the sources raises.
    """
    path = target if target is not None else target_name(label_of(delta))
    spool = Staging(Path(path).absolute()).inputs if stream else None
    reach = partial(locate, offline=offline, spool=spool, progress=progress)
    base = reach(base) if base is not None else None
    delta = reach(delta)
    source = recognise(delta)
    if isinstance(source, FileRelease):
        reason = "the release is decoded file by file, byte by byte"
        _require_plain(reason, dtype=dtype, new_rows=new_rows, whole=whole)
        return plan_decode(source, base=base, key=key, target=path)
    if key is not None:
        raise OptionMeaningless(options="`key`", reason=f"{label_of(delta)} is not encrypted")
    if base is None:
        raise NoBase(delta=label_of(delta))
    if isinstance(source, ExactDelta):
        reason = "an exact delta restores its target as it is"
        _require_plain(reason, new_rows=new_rows, whole=whole)
        return plan_restore(
            base,
            source,
            path,
            dtype=dtype,
            dtype_all=dtype_all,
            max_shard_nbytes=max_shard_nbytes,
        )
    ground = recognise(base)
    inputs = {"base": require_model(ground), "delta": require_model(source)}
    if inputs["base"].directory.samefile(inputs["delta"].directory):
        raise BaseIsDelta(source=label_of(base))
    path = target_apart(path, inputs)
    inputs["base"] = named_like(inputs["base"], inputs["delta"].tensors)
    if not force_kind:
        require_kinds(ground, source)
    record = None
    if isinstance(source, Model | AdditiveDelta) and source.fault is not None:
        raise source.fault  # it may hold the record of a delta, by which the base is known
    if isinstance(source, AdditiveDelta) and source.manifest is not None and source.record:
        record = source.record
        inputs["delta"].take_sidecars(own_sidecars(source.manifest, inputs["delta"].sidecars))
    if record is not None and new_rows == "auto" and record.new_rows != "none":
        new_rows = record.new_rows
    decision = decide(inputs["base"], inputs["delta"], new_rows=new_rows, whole=whole)
    deltas = [each.delta for each in decision.pairing.pairs]
    config = inputs["delta"].config or inputs["base"].config
    casting = plan_casting(config, deltas, DTYPES.get(dtype, ""), everything=dtype_all)
    tensors = _tensor_plans(decision, dtype, casting, inputs["base"].common_dtype)
    if record is not None and dtype == "delta" and new_rows in {"auto", record.new_rows}:
        require_base(record.base, {tensor.output.name for tensor in tensors}, inputs["base"])
        tensors = [record.expected(tensor) for tensor in tensors]
    outputs = [tensor.output for tensor in tensors]
    sidecars = choose_sidecars(
        {"delta": inputs["delta"], "base": inputs["base"]},
        outputs,
        repair=repair,
        all_sidecars=all_sidecars,
    )
    plan = Plan(
        verb="apply-delta",
        inputs=input_plans(inputs),
        shards=lay_out(tensors, max_shard_nbytes or MAX_SHARD_NBYTES),
        sidecars=sidecars.plans,
        dropped=decision.pairing.dropped,
        notes=(*decision.notes, *casting.notes, *sidecars.notes),
        repairs=sidecars.repairs,
        release=decision.recognition.release.id if decision.recognition.release else "",
    )
    bindings = Bindings(inputs, sidecars.contents, path, finite=("delta",))
    return Job(plan, bindings, decision.recognition.release, sidecars.faults)


def apply_delta(
    base: str | os.PathLike[str] | None,
    delta: str | os.PathLike[str],
    *,
    key: str | os.PathLike[str] | None = None,
    target: str | os.PathLike[str] | None = None,
    dtype: DTypeChoice = "delta",
    dtype_all: bool = False,
    new_rows: NewRowsChoice = "auto",
    whole: Sequence[str] = (),
    force_kind: bool = False,
    repair: bool = True,
    max_shard_nbytes: int | None = None,
    all_sidecars: bool = False,
    stream: bool = False,
    offline: bool = False,
    options: Options | None = None,
    progress: Progress = SILENCE,
) -> engine.Outcome:
    """Write target = base + delta to a new directory, whole or not at all.

    The arguments before `options` are those of `plan_apply_delta`.
    Memory: a few spans of 2 MiB a worker; it does not depend on the model.
    Raises: as `plan_apply_delta` and `Job.run`.
    """
    job = plan_apply_delta(
        base,
        delta,
        key=key,
        target=target,
        dtype=dtype,
        dtype_all=dtype_all,
        new_rows=new_rows,
        whole=whole,
        force_kind=force_kind,
        repair=repair,
        max_shard_nbytes=max_shard_nbytes,
        all_sidecars=all_sidecars,
        stream=stream,
        offline=offline,
        progress=progress,
    )
    return job.run(options, progress)


def target_name(delta: str) -> Path:
    """``lmsys/vicuna-7b-delta-v1.1`` -> ``vicuna-7b-v1.1``.

    Raises: NoTargetName, if the name has no such word, or nothing else.
    """
    name = Path(delta.rstrip("/").split("@")[0]).name
    stripped, count = _DELTA_WORD.subn("", name, count=1)
    if not count or not stripped:
        raise NoTargetName(delta=delta)
    return Path(stripped)


def promoted(*dtypes: str) -> str:
    """The smallest float dtype that holds every value of all of these."""
    widest = max(dtypes, key=dtype_bits)
    same_width = {dtype for dtype in dtypes if dtype_bits(dtype) == dtype_bits(widest)}
    return widest if len(same_width) == 1 else "F32"


def _require_plain(reason: str, **options: object) -> None:
    """Refuse what only a sum of tensors could heed.

    Raises: OptionMeaningless.
    """
    usual = {"dtype": "delta", "new_rows": "auto", "whole": ()}
    given = [f"`{n}`" for n, said in options.items() if said != usual[n]]
    if given:
        raise OptionMeaningless(options=", ".join(given), reason=reason)


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
    """The rule for one tensor; `base_dtype` is what most of the base is stored in."""
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

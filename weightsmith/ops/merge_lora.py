"""Merge adapters into a base: target = base with each adapter's change."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from weightsmith.codecs.lora.steps import format_steps
from weightsmith.engine import run as engine
from weightsmith.engine.options import Bindings, Options
from weightsmith.engine.staging import Staging
from weightsmith.errors import LabelsUnused, WeightsInvalid, WeightsNeedOnce
from weightsmith.formats.tensors import DTYPES
from weightsmith.ops.adapters.labels import head_settings
from weightsmith.ops.adapters.merging import merged, touched
from weightsmith.ops.adapters.regrouped import regrouped
from weightsmith.ops.job import Job, input_plans, recorded, target_apart
from weightsmith.ops.sidecars import merged_sidecars
from weightsmith.plan.casts import Casting, plan_casting
from weightsmith.plan.merging import Chain
from weightsmith.plan.model import Plan, TensorPlan
from weightsmith.plan.shards import MAX_SHARD_NBYTES, lay_out
from weightsmith.progress import SILENCE, Progress
from weightsmith.sources.dequantised import (
    dequantised,
    dequantised_note,
    kept_metadata,
    quantisation_of,
)
from weightsmith.sources.locate import locate
from weightsmith.sources.recognise import open_lora, open_model

Rounding = Literal["once", "peft"]
MergedDType = Literal["base", "float16", "bfloat16", "float32"]


@recorded("merge-lora")
def plan_merge_lora(
    base: str | os.PathLike[str],
    loras: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str],
    *,
    weights: Sequence[float] = (),
    scale: float = 1.0,
    labels: Sequence[str] = (),
    rounding: Rounding = "once",
    dtype: MergedDType = "base",
    dtype_all: bool = False,
    max_shard_nbytes: int = MAX_SHARD_NBYTES,
    repair: bool = True,
    stream: bool = False,
    all_sidecars: bool = False,
    offline: bool = False,
    progress: Progress = SILENCE,
) -> Job:
    """Decide everything about a merge, reading headers, sidecars and few of the adapters' tensors.

    Adapters are applied in the order given, each to the result of the one before. `weights`, one
    for each adapter, and `scale`, for all of them, multiply what the adapters add. `labels` are the
    names of the classes, if an adapter holds a classifier. With `repair`, known faults of tokenizer
    and config files are mended.
    Dtypes: with `rounding` ``once`` all is computed in float32 and rounded at the end; ``peft``
    gives the bits of loading the base in the result's dtype and calling ``merge_and_unload`` for
    one adapter after another. A named `dtype` leaves a quantiser's statistics as they are, and,
    without `dtype_all`, what the architecture keeps in float32 on purpose.
    A base on the hub is fetched first, or, with `stream`, each weight file when the run reads it.
    Raises: AdapterDoesNotFit with every reason; AdapterNotMergeable, AdapterConfigInvalid,
    AdapterEmpty; WeightsNeedOnce, WeightsInvalid; LabelsDoNotFit, LabelsUnused; TargetIsInput; what
    opening the sources raises.
    """
    given = [loras] if isinstance(loras, str | os.PathLike) else loras
    weights, how = _weights(weights, scale, len(given), rounding)
    spool = Staging(Path(target).absolute()).inputs if stream else None
    ground = open_model(locate(base, offline=offline, spool=spool, progress=progress))
    adapters = {
        f"lora-{number}" if len(given) > 1 else "lora": open_lora(
            lora, offline=offline, progress=progress
        )
        for number, lora in enumerate(given, start=1)
    }
    inputs = {"base": ground, **adapters}
    path = target_apart(target, inputs)
    metadata = kept_metadata(ground)
    as_peft = rounding == "peft"
    if quantised := quantisation_of(ground):
        code = DTYPES.get(dtype, "BF16")
        floats = dequantised(ground, quantised, code)
        merging, notes = merged(floats, adapters, weights, as_peft=as_peft)
        if touched(merging, quantised.names):
            ground, metadata = floats, {}
            notes.insert(0, dequantised_note(quantised, code))
        else:
            merging, notes = merged(ground, adapters, weights, as_peft=as_peft)
            notes.insert(0, f"no quantised weight is changed: the base stays {quantised}")
    else:
        merging, notes = merged(ground, adapters, weights, as_peft=as_peft)
    inputs = {"base": ground} | {
        role: regrouped(each, merging.grouped.get(role, {})) for role, each in adapters.items()
    }
    results = [chain.output for chain in merging.chains.values()]
    casting = plan_casting(ground.config, results, DTYPES.get(dtype, ""), everything=dtype_all)
    tensors = [_tensor_plan(chain, casting, rounding) for chain in merging.chains.values()]
    outputs = [tensor.output for tensor in tensors]
    settings: dict[str, object] = {"tie_word_embeddings": False} if merging.parted else {}
    if merging.head:
        lora = adapters[merging.head.role]
        named, which = head_settings(ground, lora, merging.head, labels)
        settings |= named
        notes.append(which)
    elif labels:
        raise LabelsUnused(labels=", ".join(labels))
    sidecars = merged_sidecars(
        ground, adapters, outputs, settings, repair=repair, all_sidecars=all_sidecars
    )
    plan = Plan(
        verb="merge-lora",
        inputs=input_plans(inputs),
        shards=lay_out(tensors, max_shard_nbytes, metadata),
        sidecars=sidecars.plans,
        dropped=merging.dropped,
        notes=(*how, *notes, *casting.notes, *sidecars.notes),
        repairs=sidecars.repairs,
    )
    bindings = Bindings(inputs, sidecars.contents, path)
    return Job(plan, bindings, faults=sidecars.faults, looked_through=tuple(adapters))


def merge_lora(
    base: str | os.PathLike[str],
    loras: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str],
    *,
    weights: Sequence[float] = (),
    scale: float = 1.0,
    labels: Sequence[str] = (),
    rounding: Rounding = "once",
    dtype: MergedDType = "base",
    dtype_all: bool = False,
    max_shard_nbytes: int = MAX_SHARD_NBYTES,
    repair: bool = True,
    stream: bool = False,
    all_sidecars: bool = False,
    offline: bool = False,
    options: Options | None = None,
    progress: Progress = SILENCE,
) -> engine.Outcome:
    """Write the base with the adapters merged into it to a new directory, whole or not at all.

    The arguments before `options` are those of `plan_merge_lora`.
    Memory: a few spans of 2 MiB and the factors of one layer a worker, beside torch itself.
    Raises: as `plan_merge_lora` and `Job.run`.
    """
    job = plan_merge_lora(
        base,
        loras,
        target,
        weights=weights,
        scale=scale,
        labels=labels,
        rounding=rounding,
        dtype=dtype,
        dtype_all=dtype_all,
        max_shard_nbytes=max_shard_nbytes,
        repair=repair,
        stream=stream,
        all_sidecars=all_sidecars,
        offline=offline,
        progress=progress,
    )
    return job.run(options, progress)


def _weights(
    weights: Sequence[float], scale: float, count: int, rounding: Rounding
) -> tuple[Sequence[float], list[str]]:
    """The weight of each adapter, and a note on how they are combined.

    Raises: WeightsNeedOnce, WeightsInvalid.
    """
    if not weights and scale == 1:
        order = "the adapters are applied one after another, each to the result of the one before"
        return [1.0] * count, [order] if count > 1 else []
    if rounding != "once":
        raise WeightsNeedOnce
    found = [weight * scale for weight in weights or [1.0] * count]
    spelt = ", ".join(f"{weight:g}" for weight in found)
    if len(found) != count or not all(map(math.isfinite, found)):
        raise WeightsInvalid(count=count, weights=spelt)
    what = "the adapters are summed" if count > 1 else "the adapter is added"
    return found, [f"{what} in float32 with weight {spelt}, and the result is rounded once"]


def _tensor_plan(chain: Chain, casting: Casting, rounding: Rounding) -> TensorPlan:
    """The rule for one tensor; one that no adapter changes is copied, or cast to the output's
    dtype.
    """
    name, out = chain.output.name, casting.dtype_of(chain.output)
    if not chain.steps:
        return TensorPlan.cast_or_copy(chain.start, out, name=name)
    params = {"dtype": out, "rounding": rounding, "steps": format_steps(chain.steps)}
    if chain.experts:
        params["experts"] = str(chain.experts)
    return TensorPlan.make("lora@1", params, (chain.start, *chain.inputs), name=name)

"""Apply versions of a model, which a training run publishes as the changes of each step."""

import os

from weightsmith.engine.options import Bindings
from weightsmith.ops.job import Job, input_plans, target_apart
from weightsmith.ops.sidecars import copied_sidecars
from weightsmith.plan.model import InputTensor, Plan, TensorPlan
from weightsmith.plan.shards import MAX_SHARD_NBYTES, lay_out
from weightsmith.sources.disk_delta import DiskDelta, fold
from weightsmith.sources.recognise import open_model


def plan_versions(
    base: str | os.PathLike[str] | None,
    delta: DiskDelta,
    target: str | os.PathLike[str],
    *,
    at: int | None = None,
    max_shard_nbytes: int | None = None,
) -> Job:
    """Decide how to write version `at`, or the newest, reading headers only.

    Versions that start from a whole one need no base.
    Raises: as `sources.disk_delta.fold`; TargetIsInput; what opening the base raises.
    """
    ground = open_model(base) if base is not None else None
    model = fold(ground, delta, at)
    inputs = {"model": model, "delta": delta.checkpoint}
    path = target_apart(target, inputs if ground is None else {**inputs, "base": ground})
    sidecars = copied_sidecars(model, "model")
    rules = [
        TensorPlan.make("copy@1", {}, [InputTensor("model", tensor.info)])
        for tensor in model.tensors.values()
    ]
    plan = Plan(
        verb="apply-delta",
        inputs=input_plans({"model": model}),
        shards=lay_out(rules, max_shard_nbytes or MAX_SHARD_NBYTES),
        sidecars=sidecars.plans,
        notes=(f"the result is {model.label}", *sidecars.notes),
    )
    return Job(plan, Bindings({"model": model}, sidecars.contents, path))

"""Make a delta: what a target differs by from its base."""

import os

from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.engine import encode as engine
from weightsmith.engine.bindings import Bindings, Options
from weightsmith.engine.progress import SILENCE, Progress
from weightsmith.errors import BaseIsTarget, DtypeNotStorable
from weightsmith.formats.tensors import TORCH_ONLY_BITS
from weightsmith.ops.job import Job, input_plans, target_apart
from weightsmith.ops.sources import label_of, open_source
from weightsmith.plan.encode import plan_files
from weightsmith.plan.model import Plan, SidecarPlan


def plan_make_delta(
    base: str | os.PathLike[str],
    target: str | os.PathLike[str],
    delta: str | os.PathLike[str],
    *,
    base_id: str = "",
) -> Job:
    """Decide everything about an exact delta, reading headers and sidecars only.

    `base_id` says what a base of this machine is on the hub, ``ORG/NAME@COMMIT``, for those who
    will apply the delta; of a base from the hub, it is known.
    Raises: BaseIsTarget, TargetIsInput; DtypeNotStorable; what opening the sources raises.
    """
    inputs = {"base": open_source(base), "target": open_source(target)}
    if inputs["base"].directory.samefile(inputs["target"].directory):
        raise BaseIsTarget(source=label_of(base))
    path = target_apart(delta, inputs)
    for tensor in inputs["target"].tensors.values():
        if tensor.info.dtype in TORCH_ONLY_BITS:
            raise DtypeNotStorable(name=tensor.info.name, dtype=tensor.info.dtype)
    contents = {
        name: inputs["target"].read_sidecar(name) for name in sorted(inputs["target"].sidecars)
    }
    notes = []
    if base_id:
        notes.append(f"the base is {base_id}")
    if not engine.restorable_files(inputs["target"]):
        notes.append("tensors will be restored, not the target's files as they are")
    plan = Plan(
        verb="make-delta",
        inputs=input_plans(inputs),
        shards=plan_files(inputs["base"], inputs["target"]),
        sidecars=tuple(
            SidecarPlan(name, "target", len(content), bytes_digest(content))
            for name, content in contents.items()
        ),
        dropped=tuple(
            name for name in inputs["base"].tensors if name not in inputs["target"].tensors
        ),
        notes=tuple(notes),
    )
    return Job(plan, Bindings(inputs, contents, path))


def make_delta(
    base: str | os.PathLike[str],
    target: str | os.PathLike[str],
    delta: str | os.PathLike[str],
    *,
    base_id: str = "",
    options: Options | None = None,
    progress: Progress = SILENCE,
) -> engine.Encoded:
    """Write an exact delta to a new directory, whole or not at all.

    Every span is read back and decoded before the delta is published; whoever has the base gets the
    target from it bit for bit, and its safetensors files byte for byte.
    Memory: some ten spans of 2 MiB a worker; it does not depend on the model.
    Raises: as `plan_make_delta` and `engine.encode.encode`.
    """
    job = plan_make_delta(base, target, delta, base_id=base_id)
    return engine.encode(job.plan, job.bindings, base_id, options or Options(), progress)

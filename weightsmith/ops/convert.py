"""Write a model anew: as safetensors, in other shards, another dtype, Hugging Face's layout."""

import os
from dataclasses import replace
from typing import Final, Literal

from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.checkpoint.layout import PARAMS
from weightsmith.checkpoint.tied import tied_copies
from weightsmith.engine import run as engine
from weightsmith.engine.options import Bindings, Options
from weightsmith.errors import DtypeNotStorable
from weightsmith.formats.tensors import DTYPES, TORCH_ONLY_BITS, TensorInfo
from weightsmith.ops.job import Job, input_plans, target_apart
from weightsmith.ops.known_files import check_known
from weightsmith.ops.sidecars import choose_sidecars
from weightsmith.plan.casts import Casting, plan_casting
from weightsmith.plan.model import InputTensor, Plan, TensorPlan
from weightsmith.plan.shards import MAX_SHARD_NBYTES, lay_out
from weightsmith.progress import SILENCE, Progress
from weightsmith.sources.meta import find_tokenizer
from weightsmith.sources.recognise import open_model

DTypeChoice = Literal["keep", "float16", "bfloat16", "float32"]
_ROLE: Final = "source"


def plan_convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    dtype: DTypeChoice = "keep",
    dtype_all: bool = False,
    max_shard_nbytes: int = MAX_SHARD_NBYTES,
    all_sidecars: bool = False,
    offline: bool = False,
    progress: Progress = SILENCE,
) -> Job:
    """Decide how to write `source` anew as safetensors, reading headers and sidecars.

    Dtypes: floats of 16 bits and more take `dtype`, each value rounded once; integers, booleans
    and floats of 8 bits stay what they are, and so does what a quantiser keeps beside them. What
    the architecture keeps in float32 on purpose is cast with `dtype_all` only.
    Raises: TargetIsInput; DtypeNotStorable; what opening the source raises.
    """
    checkpoint = open_model(source, offline=offline, progress=progress)
    inputs = {_ROLE: checkpoint}
    path = target_apart(target, inputs)
    ties = checkpoint.config.get("tie_word_embeddings") is True  # else a loader would need them
    copies = tied_copies(checkpoint, compare=False) if ties else {}
    tensors = checkpoint.tensors.items()
    dropped = [name for name, tensor in tensors if is_buffer(name, tensor.info.shape)]
    infos = [t.info for name, t in tensors if name not in dropped and name not in copies]
    wanted = DTYPES.get(dtype, "")
    casting = plan_casting(checkpoint.config, infos, wanted, everything=dtype_all)
    plans = [_tensor_plan(info, casting) for info in infos]
    outputs = [each.output for each in plans]
    sidecars = choose_sidecars(inputs, outputs, repair=False, all_sidecars=all_sidecars)
    plan = Plan(
        verb="convert",
        inputs=input_plans(inputs),
        shards=lay_out(plans, max_shard_nbytes),
        sidecars=sidecars.plans,
        dropped=tuple(dropped),
        notes=(
            *(f"{name} is not written: the config ties it to {copies[name]}" for name in copies),
            *casting.notes,
            *sidecars.notes,
        ),
        repairs=sidecars.repairs,
    )
    return Job(plan, Bindings(inputs, sidecars.contents, path), faults=sidecars.faults)


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    dtype: DTypeChoice = "keep",
    dtype_all: bool = False,
    max_shard_nbytes: int = MAX_SHARD_NBYTES,
    all_sidecars: bool = False,
    offline: bool = False,
    options: Options | None = None,
    progress: Progress = SILENCE,
) -> engine.Outcome:
    """Write `source` anew as safetensors in the directory `target`, whole or not at all.

    The arguments before `options` are those of `plan_convert`.
    Memory: a few spans of 2 MiB a worker; it does not depend on the model.
    Raises: as `plan_convert` and `Job.run`.
    """
    job = plan_convert(
        source,
        target,
        dtype=dtype,
        dtype_all=dtype_all,
        max_shard_nbytes=max_shard_nbytes,
        all_sidecars=all_sidecars,
        offline=offline,
        progress=progress,
    )
    return job.run(options, progress)


def check_source(job: Job, options: Options, progress: Progress = SILENCE) -> Job:
    """The job with what the catalogue knows of the source's files, all of which are hashed for it.

    Raises: FilesNotAsPublished.
    """
    source = job.bindings.inputs[_ROLE]
    weights = [file.name for file in source.files]
    names = sorted({*weights, *source.sidecars, PARAMS})
    files = {name: source.directory / name for name in names}
    if tokenizer := find_tokenizer(source.directory):
        files[tokenizer.name] = tokenizer
    there = {name: path for name, path in files.items() if path.is_file()}
    findings = check_known(there, weights, threads=options.threads, progress=progress)
    return replace(job, checked=tuple(map(str, findings)))


def _tensor_plan(info: TensorInfo, casting: Casting) -> TensorPlan:
    if info.dtype in TORCH_ONLY_BITS:
        raise DtypeNotStorable(name=info.name, dtype=info.dtype)
    return TensorPlan.cast_or_copy(InputTensor(_ROLE, info), casting.dtype_of(info))

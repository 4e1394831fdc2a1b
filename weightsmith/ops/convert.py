"""Convert a model: to safetensors, other shards, another dtype, Hugging Face's layout."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.checkpoint.layout import PARAMS
from weightsmith.checkpoint.tied import parted_heads, tied_copies, ties_embeddings
from weightsmith.engine import run as engine
from weightsmith.engine.options import Bindings, Options
from weightsmith.engine.staging import Staging
from weightsmith.errors import DtypeNotStorable
from weightsmith.formats.tensors import DTYPES, TORCH_ONLY_BITS
from weightsmith.ops.convert_inputs import SOURCE, open_inputs
from weightsmith.ops.job import Job, input_plans, recorded, target_apart
from weightsmith.ops.known_files import check_known
from weightsmith.plan.casts import Casting, plan_casting
from weightsmith.plan.model import InputTensor, Plan, TensorPlan
from weightsmith.plan.selection import Selection
from weightsmith.plan.shards import MAX_SHARD_NBYTES, lay_out
from weightsmith.progress import SILENCE, Progress
from weightsmith.sources.dequantised import kept_metadata
from weightsmith.sources.locate import locate
from weightsmith.sources.meta import find_tokenizer
from weightsmith.sources.training.zero import Weights

DTypeChoice = Literal["keep", "float16", "bfloat16", "float32"]


@recorded("convert")
def plan_convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    dtype: DTypeChoice = "keep",
    dtype_all: bool = False,
    dequantize: bool = False,
    weights: Weights | None = None,
    sidecars_from: str | os.PathLike[str] | None = None,
    fill_from: str | os.PathLike[str] | None = None,
    rename: Sequence[str] = (),
    drop: Sequence[str] = (),
    keep: Sequence[str] = (),
    max_shard_nbytes: int = MAX_SHARD_NBYTES,
    repair: bool = True,
    all_sidecars: bool = False,
    stream: bool = False,
    offline: bool = False,
    progress: Progress = SILENCE,
) -> Job:
    """Decide how to write `source` anew as safetensors, reading headers and sidecars.

    `weights`: which precision to take where DeepSpeed's states hold two.
    `drop`, `keep`: patterns of tensor names to leave out, and of the only ones to take.
    `rename`: ``OLD=NEW``, as `Selection` explains it; OLD is a name in the source.
    `fill_from`: a model that supplies the tensors that the source lacks.
    `sidecars_from`: a model whose config and tokenizer are taken.
    `repair`: known faults of tokenizer and config files are mended.
    `dequantize`: weights that a quantiser packed become floats, in `dtype` or else bfloat16.
    `stream`: a source on the hub is not fetched first, but each weight file when the run reads it.
    Dtypes: floats of 16 bits and more are cast to `dtype`, each value rounded once; integers,
    booleans, floats of 8 bits and a quantiser's statistics keep their dtypes. What the
    architecture keeps in float32 on purpose is cast with `dtype_all` only.
    Raises: TargetIsInput; DtypeNotStorable; what `open_inputs` raises.
    """
    spool = Staging(Path(target).absolute()).inputs if stream else None
    reach = partial(locate, offline=offline, spool=spool, progress=progress)
    found = open_inputs(
        reach(source),
        dequantize=DTYPES.get(dtype, "BF16") if dequantize else "",
        weights=weights,
        selection=Selection(tuple(rename), tuple(drop), tuple(keep)),
        fill_from=None if fill_from is None else reach(fill_from),
        sidecars_from=sidecars_from,
        offline=offline,
        progress=progress,
    )
    checkpoint, config, inputs = found.source, found.config, found.roles
    path = target_apart(target, inputs)
    ties = ties_embeddings(config) is True  # otherwise a loader needs the copies
    copies = tied_copies(checkpoint, compare=True) if ties else {}
    apart = parted_heads(checkpoint, copies) if ties else []
    tensors = found.tensors()
    dropped = [each.info.name for each in tensors if is_buffer(each.info.name, each.info.shape)]
    written = [t for t in tensors if t.info.name not in dropped and t.info.name not in copies]
    wanted = DTYPES.get(dtype, "")
    infos = [each.info for each in written]
    casting = plan_casting(config, infos, wanted, everything=dtype_all)
    plans = [_tensor_plan(each, casting) for each in written]
    outputs = [each.output for each in plans]
    sidecars = found.sidecars(outputs, repair=repair, all_sidecars=all_sidecars)
    plan = Plan(
        verb="convert",
        inputs=input_plans(inputs),
        shards=lay_out(plans, max_shard_nbytes, {} if dequantize else kept_metadata(checkpoint)),
        sidecars=sidecars.plans,
        dropped=tuple(dropped),
        notes=(
            *(f"{name} is not written: the config ties it to {copies[name]}" for name in copies),
            *(f"{name} is not the input embedding, though the config ties it" for name in apart),
            *casting.notes,
            *found.notes,
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
    dequantize: bool = False,
    weights: Weights | None = None,
    sidecars_from: str | os.PathLike[str] | None = None,
    fill_from: str | os.PathLike[str] | None = None,
    rename: Sequence[str] = (),
    drop: Sequence[str] = (),
    keep: Sequence[str] = (),
    max_shard_nbytes: int = MAX_SHARD_NBYTES,
    repair: bool = True,
    all_sidecars: bool = False,
    stream: bool = False,
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
        dequantize=dequantize,
        weights=weights,
        sidecars_from=sidecars_from,
        fill_from=fill_from,
        rename=rename,
        drop=drop,
        keep=keep,
        max_shard_nbytes=max_shard_nbytes,
        repair=repair,
        all_sidecars=all_sidecars,
        stream=stream,
        offline=offline,
        progress=progress,
    )
    return job.run(options, progress)


def check_source(job: Job, options: Options, progress: Progress = SILENCE) -> Job:
    """Hash the source's files and compare them with the hashes in the catalogue.

    Returns: the job with the findings, for the plan that is shown.
    Raises: FilesNotAsPublished.
    """
    source = job.bindings.inputs[SOURCE]
    weights = [file.name for file in source.files]
    names = sorted({*weights, *source.sidecars, PARAMS})
    files = {name: source.directory / name for name in names}
    if tokenizer := find_tokenizer(source.directory):
        files[tokenizer.name] = tokenizer
    there = {name: path for name, path in files.items() if path.is_file()}
    findings = check_known(there, weights, threads=options.threads, progress=progress)
    return replace(job, checked=tuple(map(str, findings)))


def _tensor_plan(source: InputTensor, casting: Casting) -> TensorPlan:
    """The rule that copies or casts one tensor.

    Raises: DtypeNotStorable.
    """
    info = source.info
    if info.dtype in TORCH_ONLY_BITS:
        raise DtypeNotStorable(name=info.name, dtype=info.dtype)
    return TensorPlan.cast_or_copy(source, casting.dtype_of(info))

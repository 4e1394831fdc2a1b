"""``weightsmith convert``."""

from pathlib import Path
from typing import get_args

import click

from weightsmith.cli.options import (
    INPUTS,
    OUTPUT,
    SAFETY,
    SOURCE,
    TENSORS,
    Command,
    dtype_option,
    option,
    output_option,
    output_options,
)
from weightsmith.cli.output import Output
from weightsmith.cli.run_options import DTYPE_ALL, STREAM, Run, run_options
from weightsmith.cli.sources import passing_directory
from weightsmith.engine.staging import Staging
from weightsmith.errors import OptionMeaningless
from weightsmith.ops import convert as ops
from weightsmith.sources.training.zero import Weights


@click.command(
    "convert",
    cls=Command,
    examples=[
        "weightsmith convert ./LLaMA/13B ./llama-13b",
        "weightsmith convert ./opt-6.7b ./opt-6.7b-bf16 --dtype bfloat16",
        "weightsmith convert ./run/global_step_60/actor ./trained",
    ],
    positional=("target",),
    docs="how-to/convert",
)
@click.argument("source", type=SOURCE)
@output_option("--target", "target")
@dtype_option(
    get_args(ops.DTypeChoice),
    default="keep",
    show_default=True,
    help="Dtype for floats of 16 bits and more; all others stay as they are.",
)
@DTYPE_ALL
@option(
    "--dequantize",
    group=OUTPUT,
    is_flag=True,
    help="Unpack quantised weights to floats: bfloat16, or --dtype.",
)
@option(
    "--weights",
    group=INPUTS,
    type=click.Choice(get_args(Weights)),
    help="From DeepSpeed's states, take the 16-bit model or the float32 weights.",
)
@option(
    "--sidecars-from",
    group=INPUTS,
    type=SOURCE,
    help="Take config and tokenizer from this model.",
)
@option(
    "--fill-from",
    group=INPUTS,
    type=SOURCE,
    help="Take tensors that SOURCE lacks from this model.",
)
@option(
    "--rename",
    group=TENSORS,
    multiple=True,
    metavar="OLD=NEW",
    help="Replace OLD at the beginning of tensor names by NEW; repeatable.",
)
@option(
    "--drop",
    group=TENSORS,
    multiple=True,
    metavar="PATTERN",
    help="Leave out tensors whose names match; repeatable.",
)
@option(
    "--keep",
    group=TENSORS,
    multiple=True,
    metavar="PATTERN",
    help="Take only tensors whose names match; repeatable.",
)
@option(
    "--check-source",
    group=SAFETY,
    is_flag=True,
    help="First hash the source's files and compare them with published hashes.",
)
@STREAM
@run_options
@output_options
@click.pass_obj
def command(
    output: Output,
    source: str,
    target: str,
    dtype: ops.DTypeChoice,
    dtype_all: bool,
    dequantize: bool,
    weights: Weights | None,
    sidecars_from: str | None,
    fill_from: str | None,
    rename: tuple[str, ...],
    drop: tuple[str, ...],
    keep: tuple[str, ...],
    check_source: bool,
    stream: bool,
    run: Run,
) -> int:
    """Convert a model: safetensors, dtype, shards, Meta's files.

    Writes safetensors from .bin files, in another dtype or other shards; Hugging Face's layout from
    Meta's; or a model from a training output.

    SOURCE is a Hugging Face folder, one of Meta's (params.json and consolidated.NN.pth), or what
    FSDP, DCP, DeepSpeed, Lightning or Trainer wrote; it is recognised by its files. Works in little
    memory and reads back what it wrote; DIR appears only when it is whole.
    """
    if stream and check_source:
        reason = "with `stream` the source's files are never all here at once"
        raise OptionMeaningless(options="`check_source`", reason=reason)
    spool = Staging(Path(target).absolute()).inputs if stream else None
    here = run.located(output, source, spool=spool)
    fill = run.located(output, fill_from, spool=spool) if fill_from is not None else None
    sidecars = None
    if sidecars_from is not None:  # its weights are not needed: none is fetched
        sidecars = run.located(output, sidecars_from, spool=passing_directory())
    job = ops.plan_convert(
        here,
        target,
        dtype=dtype,
        dtype_all=dtype_all,
        dequantize=dequantize,
        weights=weights,
        sidecars_from=sidecars,
        fill_from=fill,
        rename=rename,
        drop=drop,
        keep=keep,
        max_shard_nbytes=run.max_shard_nbytes,
        repair=run.repair,
        all_sidecars=run.all_sidecars,
        stream=stream,
        offline=run.offline,
    )
    if check_source:
        with output.progress() as progress:
            job = ops.check_source(job, run.options, progress)
    return run.perform(output, job)

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
    help="What floats of 16 bits and more become; all else is kept.",
)
@DTYPE_ALL
@option(
    "--dequantize",
    group=OUTPUT,
    is_flag=True,
    help="Make floats of weights that a quantiser packed: bfloat16, or --dtype.",
)
@option(
    "--weights",
    group=INPUTS,
    type=click.Choice(get_args(Weights)),
    help="Of DeepSpeed's states: the model as trained, or the float32 weights.",
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
    help="Give names that begin with OLD another beginning; repeatable.",
)
@option(
    "--drop",
    group=TENSORS,
    multiple=True,
    metavar="PATTERN",
    help="Leave out tensors named like this; repeatable.",
)
@option(
    "--keep",
    group=TENSORS,
    multiple=True,
    metavar="PATTERN",
    help="Take tensors named like this alone; repeatable.",
)
@option(
    "--check-source",
    group=SAFETY,
    is_flag=True,
    help="Hash the source's files first and hold them against the published hashes.",
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
    """Write a model anew: safetensors, dtype, shards, Meta's files.

    From .bin files, in another dtype or in other shards; from Meta's own files to Hugging Face's;
    or out of what a training run left.

    SOURCE is a Hugging Face folder, one of Meta's (params.json and consolidated.NN.pth), or what
    FSDP, DCP, DeepSpeed, Lightning or Trainer wrote, by what it holds. Works in little memory,
    verifies what it wrote, and gives DIR its name only when it is whole.
    """
    if stream and check_source:
        reason = "of a source that is streamed there are never all files here"
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

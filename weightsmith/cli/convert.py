"""``weightsmith convert``."""

from typing import get_args

import click

from weightsmith.cli.options import (
    SAFETY,
    SOURCE,
    Command,
    dtype_option,
    option,
    output_option,
    output_options,
)
from weightsmith.cli.output import Output
from weightsmith.cli.run_options import DTYPE_ALL, Run, run_options
from weightsmith.ops import convert as ops


@click.command(
    "convert",
    cls=Command,
    examples=[
        "weightsmith convert ./LLaMA/13B ./llama-13b",
        "weightsmith convert ./opt-6.7b ./opt-6.7b-bf16 --dtype bfloat16",
    ],
    positional=("target",),
    docs="docs/convert.md",
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
    "--check-source",
    group=SAFETY,
    is_flag=True,
    help="Hash the source's files first and hold them against the published hashes.",
)
@run_options
@output_options
@click.pass_obj
def command(
    output: Output,
    source: str,
    target: str,
    dtype: ops.DTypeChoice,
    dtype_all: bool,
    check_source: bool,
    run: Run,
) -> int:
    """Write a model anew: safetensors, dtype, shards, Meta's files.

    From .bin files, in another dtype or in other shards; or from Meta's own files to Hugging
    Face's.

    SOURCE is a Hugging Face folder, or one of Meta's (params.json and consolidated.NN.pth), by what
    it holds. Works in flat memory, verifies what it wrote, and gives DIR its name only when it is
    whole.
    """
    here = run.located(output, source)
    job = ops.plan_convert(
        here,
        target,
        dtype=dtype,
        dtype_all=dtype_all,
        max_shard_nbytes=run.max_shard_nbytes,
        all_sidecars=run.all_sidecars,
    )
    if check_source:
        with output.progress() as progress:
            job = ops.check_source(job, run.options, progress)
    return run.perform(output, job)

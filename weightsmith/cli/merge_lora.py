"""``weightsmith merge-lora``."""

from pathlib import Path
from typing import get_args

import click

from weightsmith.cli.options import (
    INPUTS,
    OUTPUT,
    SOURCE,
    Command,
    dtype_option,
    option,
    output_option,
    output_options,
)
from weightsmith.cli.output import Output
from weightsmith.cli.run_options import DTYPE_ALL, STREAM, Run, run_options
from weightsmith.engine.staging import Staging
from weightsmith.ops import merge_lora as ops


@click.command(
    "merge-lora",
    cls=Command,
    examples=[
        "weightsmith merge-lora --base ./llama-7b --lora ./alpaca-lora-7b --target ./alpaca-7b",
        "weightsmith merge-lora --base ./llama-7b --lora ./first --lora ./second --target ./both",
        "weightsmith merge-lora --base ./7b --lora ./a --weight .7 --lora ./b --weight .3 -o ./ab",
    ],
    aliases={
        "base-model-path": "base",
        "lora-path": "lora",
        "target-model-path": "target",
    },
    meant={"adapter": "lora", "delta": "lora"},
    positional=("base", "loras", "target"),
    docs="how-to/merge-lora",
)
@option(
    "--base",
    group=INPUTS,
    type=SOURCE,
    required=True,
    help="The model that the adapter was trained on.",
)
@option(
    "--lora",
    "loras",
    group=INPUTS,
    type=SOURCE,
    multiple=True,
    required=True,
    help="The adapter; repeatable, each is merged into the result of the one before.",
)
@option(
    "--weight",
    "weights",
    group=INPUTS,
    type=float,
    multiple=True,
    metavar="W",
    help="A factor on an adapter: one for each --lora, in their order. They are then summed and"
    " rounded once.",
)
@option(
    "--scale",
    group=INPUTS,
    type=float,
    default=1.0,
    metavar="S",
    help="A factor on all adapters.",
)
@option(
    "--labels",
    group=INPUTS,
    metavar="A,B",
    help="Names of the labels, if an adapter holds a classifier.",
)
@output_option("--target", "target")
@option(
    "--rounding",
    group=OUTPUT,
    type=click.Choice(get_args(ops.Rounding)),
    default="once",
    show_default=True,
    help="Compute in float32 and round once, or round where peft's merge_and_unload does.",
)
@dtype_option(
    get_args(ops.MergedDType),
    default="base",
    show_default=True,
    help="The dtype of the result.",
)
@DTYPE_ALL
@STREAM
@run_options
@output_options
@click.pass_obj
def command(
    output: Output,
    base: str,
    loras: tuple[str, ...],
    target: str,
    weights: tuple[float, ...],
    scale: float,
    labels: str | None,
    rounding: ops.Rounding,
    dtype: ops.MergedDType,
    dtype_all: bool,
    stream: bool,
    run: Run,
) -> int:
    """Merge adapters, LoRA and others, into their base, on files.

    Works shard by shard in little memory, without loading the model, and reads back what it wrote.
    If a tensor of an adapter does not fit the base, nothing is merged.
    """
    spool = Staging(Path(target).absolute()).inputs if stream else None
    job = ops.plan_merge_lora(
        run.located(output, base, spool=spool),
        [run.located(output, lora, kind="adapter") for lora in loras],
        target,
        weights=weights,
        scale=scale,
        labels=[label.strip() for label in labels.split(",")] if labels else (),
        rounding=rounding,
        dtype=dtype,
        dtype_all=dtype_all,
        max_shard_nbytes=run.max_shard_nbytes,
        repair=run.repair,
        all_sidecars=run.all_sidecars,
        stream=stream,
        offline=run.offline,
    )
    return run.perform(output, job)

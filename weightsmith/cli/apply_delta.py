"""``weightsmith apply-delta``."""

from pathlib import Path
from typing import get_args

import click

from weightsmith.cli.options import (
    INPUTS,
    SAFETY,
    SOURCE,
    Command,
    FilePath,
    dtype_option,
    option,
    output_option,
    output_options,
)
from weightsmith.cli.output import Output
from weightsmith.cli.run_options import DTYPE_ALL, STREAM, Run, run_options
from weightsmith.engine.staging import Staging
from weightsmith.ops import apply_delta as ops
from weightsmith.sources.policy import NewRowsChoice
from weightsmith.sources.recognise import recognise
from weightsmith.sources.sums import DTypeChoice


@click.command(
    "apply-delta",
    cls=Command,
    examples=[
        "weightsmith apply-delta --base llama-7b --delta lmsys/vicuna-7b-delta-v1.1 --low-cpu-mem",
        "weightsmith apply-delta --base ./llama-7b --delta ./vicuna-7b-delta-v1.1 --dry-run",
    ],
    aliases={
        "base-model-path": "base",
        "path-raw": "base",
        "delta-path": "delta",
        "path-diff": "delta",
        "target-model-path": "target",
        "path-tuned": "target",
        "low-cpu-memory-conversion": "low-cpu-mem",
    },
    positional=("base", "deltas", "target"),
    docs="how-to/apply-delta",
)
@option(
    "--base",
    group=INPUTS,
    type=SOURCE,
    help="The model that the delta was made from; optional if delta or catalogue name it.",
)
@option(
    "--delta",
    "deltas",
    group=INPUTS,
    type=SOURCE,
    multiple=True,
    required=True,
    help="The delta; repeatable, each is applied to the result of the one before.",
)
@option(
    "--key",
    group=INPUTS,
    type=FilePath(exists=True, dir_okay=False),
    metavar="FILE",
    help="The file of the base that the release is encrypted with, in place of --base.",
)
@option(
    "--at",
    group=INPUTS,
    type=click.IntRange(min=0),
    metavar="N",
    help="Which version of a directory of versions (weight_vNNNNNN); default: the newest.",
)
@output_option(
    "--target",
    "target",
    required=False,
    help="Directory to make; default: the delta's name without the word delta.",
)
@dtype_option(
    get_args(DTypeChoice),
    default="delta",
    help="The result's dtype: the delta's (default), the base's, or a named one.",
)
@DTYPE_ALL
@option(
    "--new-rows",
    group=INPUTS,
    type=click.Choice(get_args(NewRowsChoice)),
    default="auto",
    help="What vocabulary rows that the base lacks count as; auto (default): ask the catalogue.",
)
@option(
    "--whole",
    group=INPUTS,
    metavar="PATTERN",
    multiple=True,
    help="Names of tensors that the delta stores whole, not as a difference; repeatable.",
)
@option(
    "--force-kind",
    group=SAFETY,
    is_flag=True,
    help="Go on even if the base looks like a delta, or the delta like a model.",
)
@STREAM
@run_options
@output_options
@click.pass_obj
def command(
    output: Output,
    base: str | None,
    deltas: tuple[str, ...],
    key: str | None,
    at: int | None,
    target: str | None,
    dtype: DTypeChoice,
    dtype_all: bool,
    new_rows: NewRowsChoice,
    whole: tuple[str, ...],
    force_kind: bool,
    stream: bool,
    run: Run,
) -> int:
    """Add a published delta to its base: target = base + delta.

    Works shard by shard in little memory and reads back what it wrote; the target appears only when
    it is whole. After an interruption the same command goes on where it stopped.
    """
    path = Path(target) if target is not None else ops.target_name(deltas[-1])
    spool = Staging(path.absolute()).inputs if stream else None
    ground = run.located(output, base, spool=spool) if base is not None else None
    located = [run.located(output, delta, spool=spool) for delta in deltas]
    wants_base = ground is None and key is None
    if wants_base and (known := ops.known_base(recognise(located[0]))):
        output.line(f"the base is {known}, as the delta or the catalogue names it")
        ground = run.located(output, known, spool=spool)
    job = ops.plan_apply_delta(
        ground,
        located,
        key=key,
        at=at,
        target=path,
        dtype=dtype,
        dtype_all=dtype_all,
        new_rows=new_rows,
        whole=whole,
        force_kind=force_kind,
        repair=run.repair,
        max_shard_nbytes=run.max_shard_nbytes if run.max_shard_given else None,
        all_sidecars=run.all_sidecars,
        stream=stream,
        offline=run.offline,
    )
    return run.perform(output, job)

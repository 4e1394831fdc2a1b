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
    help="The model the delta was made from; may be left out where delta or catalogue say.",
)
@option(
    "--delta",
    "deltas",
    group=INPUTS,
    type=SOURCE,
    multiple=True,
    required=True,
    help="What was published; repeatable, each on the result of the one before.",
)
@option(
    "--key",
    group=INPUTS,
    type=FilePath(exists=True, dir_okay=False),
    metavar="FILE",
    help="For releases encrypted with a file of their base: that file; no --base then.",
)
@option(
    "--at",
    group=INPUTS,
    type=click.IntRange(min=0),
    metavar="N",
    help="Of a directory of versions (weight_vNNNNNN), which; default: the newest.",
)
@output_option(
    "--target",
    "target",
    required=False,
    help="Directory to make; default: the delta's name without its -delta word.",
)
@dtype_option(
    get_args(DTypeChoice),
    default="delta",
    help="Arithmetic and result: as the delta (default) or base was stored, or a named dtype.",
)
@DTYPE_ALL
@option(
    "--new-rows",
    group=INPUTS,
    type=click.Choice(get_args(NewRowsChoice)),
    default="auto",
    help="How vocabulary rows that the base lacks count; auto (default): by the catalogue.",
)
@option(
    "--whole",
    group=INPUTS,
    metavar="PATTERN",
    multiple=True,
    help="Tensors that the delta stores whole, not as a difference; repeatable.",
)
@option(
    "--force-kind",
    group=SAFETY,
    is_flag=True,
    help="Insist that the base is a model and the delta a delta, against appearances.",
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

    Works shard by shard in little memory, verifies what it wrote, and gives the target its name
    only when it is whole. Run the same command again to continue after an interruption.
    """
    path = Path(target) if target is not None else ops.target_name(deltas[-1])
    spool = Staging(path.absolute()).inputs if stream else None
    ground = run.located(output, base, spool=spool) if base is not None else None
    located = [run.located(output, delta, spool=spool) for delta in deltas]
    wants_base = ground is None and key is None
    if wants_base and (known := ops.known_base(recognise(located[0]))):
        output.line(f"the base is {known}, by what is known of {deltas[0]}")
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

"""``weightsmith apply-delta``."""

import threading
import time
from typing import Final, get_args

import click

from weightsmith.cli.options import (
    INPUTS,
    OUTPUT,
    SAFETY,
    SIZE,
    SOURCE,
    SPEED,
    Command,
    dry_run_option,
    option,
    output_options,
)
from weightsmith.cli.output import Output
from weightsmith.cli.plan_view import show_dry_run, show_outcome, show_plan
from weightsmith.codecs.torch_views import import_torch
from weightsmith.engine.bindings import Options, Verify, default_workers
from weightsmith.ops import apply_delta as ops
from weightsmith.ops.job import carry_out
from weightsmith.ops.job import needs as assess_needs
from weightsmith.ops.policy import NewRowsChoice
from weightsmith.ops.sums import sum_report

VERIFIED: Final[dict[str, str]] = {
    "cache": "read back and verified",
    "disk": "read back from disk and verified",
    "no": "not verified",
}


@click.command(
    "apply-delta",
    cls=Command,
    examples=[
        "weightsmith apply-delta --base ./llama-7b --delta ./vicuna-7b-delta-v1.1 --low-cpu-mem",
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
    docs="docs/apply-delta.md",
)
@option(
    "--base", group=INPUTS, type=SOURCE, required=True, help="The model the delta was made from."
)
@option("--delta", group=INPUTS, type=SOURCE, required=True, help="What was published.")
@option(
    "-o",
    "--output",
    "--target",
    "target",
    group=OUTPUT,
    type=click.Path(),
    metavar="DIR",
    help="Directory to make; default: the delta's name without its -delta word.",
)
@option(
    "--dtype",
    group=OUTPUT,
    type=click.Choice(get_args(ops.DTypeChoice)),
    default="delta",
    help="Arithmetic and result: as the delta (default) or base was stored, or a named dtype.",
)
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
@option(
    "--no-repair",
    group=OUTPUT,
    is_flag=True,
    help="Tokenizer and config files verbatim, even where a release's are known to be broken.",
)
@option(
    "--max-shard-size",
    group=OUTPUT,
    type=SIZE,
    default="5GB",
    show_default=True,
    help="Largest output file.",
)
@option(
    "--low-cpu-mem",
    group=SPEED,
    is_flag=True,
    help="One worker, page cache given back; the same bytes.",
)
@option(
    "--workers",
    group=SPEED,
    type=click.IntRange(min=1),
    default=default_workers,
    help="Threads; default: one a core, four at most.",
)
@option(
    "--verify",
    group=SAFETY,
    type=click.Choice(get_args(Verify)),
    default="cache",
    show_default=True,
    help="Read the result back: from the page cache, from disk, or not.",
)
@option(
    "--overwrite",
    group=SAFETY,
    is_flag=True,
    help="Replace an existing target, once the new one is whole.",
)
@option("--restart", group=SAFETY, is_flag=True, help="Discard unfinished work of an earlier run.")
@dry_run_option
@output_options
@click.pass_obj
def command(
    output: Output,
    base: str,
    delta: str,
    target: str | None,
    dtype: ops.DTypeChoice,
    new_rows: NewRowsChoice,
    whole: tuple[str, ...],
    force_kind: bool,
    no_repair: bool,
    max_shard_size: int,
    low_cpu_mem: bool,
    workers: int,
    verify: Verify,
    overwrite: bool,
    restart: bool,
    dry_run: bool,
) -> None:
    """Add a published delta to its base model: target = base + delta.

    Works shard by shard in flat memory, verifies what it wrote, and gives the target its name only
    when it is whole. Run the same command again to continue after an interruption.
    """
    started = time.monotonic()
    if not dry_run:
        # A second of start-up that can pass while headers are read.
        threading.Thread(target=import_torch, daemon=True).start()
    job = ops.plan_apply_delta(
        base,
        delta,
        target=target,
        dtype=dtype,
        new_rows=new_rows,
        whole=whole,
        force_kind=force_kind,
        repair=not no_repair,
        max_shard_nbytes=max_shard_size,
    )
    options = Options(
        workers=workers,
        low_cpu_mem=low_cpu_mem,
        verify=verify,
        overwrite=overwrite,
        restart=restart,
    )
    needs = assess_needs(job, options)
    show_plan(output, job, needs)
    if dry_run:
        show_dry_run(output, job, needs)
        return
    output.kept = "finished shards are kept; --restart would discard them"
    sums = None
    with output.progress() as progress:
        outcome = carry_out(job, options, progress)
        if job.release is not None and job.release.sums and not outcome.already_done:
            sums = sum_report(
                outcome.target,
                job.release,
                job.bindings.inputs,
                threads=options.threads,
                progress=progress,
            )
    elapsed_s = time.monotonic() - started
    show_outcome(output, outcome, sums, elapsed_s=elapsed_s, verified=VERIFIED[verify])

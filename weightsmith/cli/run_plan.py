"""``weightsmith run-plan``."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import click

from weightsmith.cli.layout import styled
from weightsmith.cli.options import (
    CLUSTER,
    SAFETY,
    SPEED,
    Command,
    FilePath,
    option,
    output_options,
)
from weightsmith.cli.output import Output, command_line
from weightsmith.cli.plan_view import show_outcome
from weightsmith.cli.run_options import LOW_CPU_MEM, VERIFIED
from weightsmith.engine.options import Options, Verify
from weightsmith.engine.share import Share
from weightsmith.ops.run_plan import Opened, opened, parse_partition
from weightsmith.units import counted, format_duration


class _Place(click.ParamType[tuple[str, str]]):
    """``NAME=PATH``: a name in the plan, and its path on this machine."""

    name = "place"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """``"base=/mnt/x"`` -> ``("base", "/mnt/x")``."""
        name, _, path = str(value).partition("=")
        if not name or not path:
            self.fail(f"{value!r} is no place; write it as base=/mnt/llama", param, ctx)
        return name, str(FilePath().convert(path, param, ctx))


@click.command(
    "run-plan",
    cls=Command,
    examples=[
        "weightsmith run-plan plan.json --partition 1/4",
        "weightsmith run-plan plan.json --partition 2/4 --path base=/mnt/llama-70b",
        "weightsmith run-plan plan.json --finish",
    ],
    docs="how-to/cluster",
)
@click.argument("plan", type=FilePath(exists=True, dir_okay=False, path_type=Path))
@option(
    "--partition",
    group=CLUSTER,
    metavar="I/N",
    help="Make the files of this share; 1/4 to 4/4 together are all.",
)
@option(
    "--finish",
    group=CLUSTER,
    is_flag=True,
    help="When all shares are made: read them back and give the target its name.",
)
@option(
    "--path",
    "places",
    group=CLUSTER,
    type=_Place(),
    metavar="NAME=PATH",
    multiple=True,
    help="This machine's path for base, delta, lora, source, target, ...; repeatable.",
)
@option("--workers", group=SPEED, type=click.IntRange(min=1), help="Threads; default: as saved.")
@LOW_CPU_MEM
@option(
    "--verify",
    group=SAFETY,
    type=click.Choice(get_args(Verify)),
    help="Read back from the page cache, from disk, or not; default: as saved.",
)
@output_options
@click.pass_obj
def command(
    output: Output,
    plan: Path,
    partition: str | None,
    finish: bool,
    places: Sequence[tuple[str, str]],
    workers: int | None,
    low_cpu_mem: bool,
    verify: Verify | None,
) -> None:
    """Make a share of a saved plan, or finish it.

    PLAN.json is what --save-plan wrote. Its shares can be made in any order, at the same time and
    more than once, on any machines that see its paths; their files are kept beside the target. When
    all are made, --finish checks them and gives the target its name.
    """
    if finish == (partition is not None):
        raise click.UsageError("give --partition I/N, or --finish")
    started_s = time.monotonic()
    share = parse_partition(partition) if partition is not None else None
    with (
        output.progress() as progress,
        opened(plan, dict(places), whole=finish, progress=progress) as found,
    ):
        output.kept = found.what_is_kept
        options = _options(found.saved.options, workers, verify, low_cpu_mem=low_cpu_mem)
        if share is not None:
            made = found.run_share(share, options, progress)
        else:
            outcome = found.finish(options, progress)
    elapsed_s = time.monotonic() - started_s
    if share is not None:
        _show_share(output, found, plan, partition or "", made, elapsed_s)
    else:
        verified = VERIFIED[options.verify]
        show_outcome(output, outcome, elapsed_s=elapsed_s, verified=verified, planned={})


def _options(
    saved: Options, workers: int | None, verify: Verify | None, *, low_cpu_mem: bool
) -> Options:
    """As they were saved, but for what is said now."""
    return replace(
        saved,
        workers=workers or saved.workers,
        verify=verify or saved.verify,
        low_cpu_mem=low_cpu_mem or saved.low_cpu_mem,
    )


def _show_share(
    output: Output, found: Opened, plan: Path, partition: str, made: Share, elapsed_s: float
) -> None:
    """What a share did, and what comes next."""
    total, done = len(found.job.plan.shards), found.job.finished_count()
    if made.published:
        said = f"{made.target} is finished: nothing to do"
    elif not (made.made or made.kept):
        said = "no file falls to this share: nothing to do"
    elif not made.made:
        said = f"{counted(len(made.kept), 'file')} finished before: nothing to do"
    else:
        kept = f", {len(made.kept)} finished before" if made.kept else ""
        said = f"{counted(len(made.made), 'file')} in {format_duration(elapsed_s)}{kept}"
    then = ""
    if not made.published:
        output.line(f"{done} of {total} files are finished")
        if done == total:
            then = command_line(["weightsmith", "run-plan", plan, "--finish"])
    output.result(
        {
            "schema": "weightsmith.run-plan/1",
            "target": str(made.target),
            "partition": partition,
            "made": list(made.made),
            "kept": list(made.kept),
            "published": made.published,
            "files_finished": done,
            "files": total,
            "elapsed_s": round(elapsed_s, 3),
            "plan_digest": found.job.plan.digest,
        },
        human=f"{styled('done', 'green')}  share {partition}: {said}",
        quiet="\n".join(made.made),
        then=then,
    )

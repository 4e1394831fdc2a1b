"""``weightsmith make-delta``."""

import time
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click

from weightsmith.cli.delta_view import show_estimate, show_made
from weightsmith.cli.make_deltas import make_all
from weightsmith.cli.options import (
    INPUTS,
    OUTPUT,
    PUSH,
    SOURCE,
    Command,
    dashed,
    dry_run_option,
    offline_option,
    option,
    output_option,
    output_options,
    yes_option,
)
from weightsmith.cli.output import Output, command_line
from weightsmith.cli.plan_view import show_dry_run, show_plan, told
from weightsmith.cli.push_view import require_meaning, run_push, show_push_plan
from weightsmith.cli.run_options import (
    ALL_SIDECARS,
    LOW_CPU_MEM,
    OVERWRITE,
    RESTART,
    WORKERS,
    what_is_kept,
)
from weightsmith.cli.sources import located, passing_directory
from weightsmith.codecs.checksums import ALGORITHMS, Algorithm
from weightsmith.codecs.disk_delta import Encoding
from weightsmith.engine.options import Options
from weightsmith.errors import CommandLineInvalid
from weightsmith.ops import make_delta as ops
from weightsmith.ops.job import needs as assess_needs
from weightsmith.ops.push import DEFAULT_REVISION, Wish, plan_push
from weightsmith.plan.align import NewRows
from weightsmith.sources.locate import Located


@click.command(
    "make-delta",
    cls=Command,
    examples=[
        "weightsmith make-delta --base ./llama-7b --target ./my-7b --delta ./my-7b-delta",
        "weightsmith make-delta --base ./llama-7b --target ./my-7b --delta ./d --codec add",
        "weightsmith make-delta --base ./llama-7b --target ./a-7b --target ./b-7b --delta ./deltas",
        "weightsmith make-delta --base org/7b --target ./my-7b --delta ./d --hub-repo-id me/d",
    ],
    aliases={
        "base-model-path": "base",
        "target-model-path": "target",
        "delta-path": "delta",
    },
    meant={"model": "target", "target-model": "target", "base-model": "base"},
    positional=("base", "targets", "delta"),
    docs="how-to/make-delta",
)
@option("--base", group=INPUTS, type=SOURCE, required=True, help="The original model.")
@option(
    "--target",
    "targets",
    group=INPUTS,
    type=SOURCE,
    multiple=True,
    required=True,
    help="The model that was trained from it; for several, DIR gets a directory for each.",
)
@output_option("--delta", "delta")
@option(
    "--codec",
    group=OUTPUT,
    type=click.Choice(["exact", "add"]),
    default="exact",
    show_default=True,
    help="exact: small, restores every bit; add: FastChat's format, which rounds.",
)
@option(
    "--format",
    "form",
    group=OUTPUT,
    type=click.Choice(["weightsmith", "disk-delta"]),
    default="weightsmith",
    show_default=True,
    help="disk-delta: a version of a training run, in DIR/weight_vNNNNNN.",
)
@option(
    "--encoding",
    group=OUTPUT,
    type=click.Choice(get_args(Encoding)),
    help="For --format disk-delta: xor (default) or overwrite.",
)
@option(
    "--checksum",
    group=OUTPUT,
    type=click.Choice(ALGORITHMS),
    help="For --format disk-delta: the checksum of each tensor; default: xxh3-128.",
)
@option(
    "--new-rows",
    group=OUTPUT,
    type=click.Choice(["zero", "mean"]),
    default="zero",
    show_default=True,
    help="For --codec add: what vocabulary rows that the base lacks count as.",
)
@option(
    "--base-id",
    group=OUTPUT,
    metavar="ORG/NAME@REV",
    default="",
    help="Where others find the base on the hub; known if --base is from there.",
)
@option(
    "--portable",
    group=OUTPUT,
    is_flag=True,
    help="Larger and slower to make, but quick to apply without the compiled part.",
)
@option(
    "--adapter",
    group=INPUTS,
    type=SOURCE,
    help="The LoRA that was merged into the base, if you still have it.",
)
@option(
    "--hub-repo-id",
    group=PUSH,
    metavar="ORG/NAME",
    default="",
    help="Push the finished delta there, with a model card; asks first.",
)
@option("--public", group=PUSH, is_flag=True, help="Make the repository public, not private.")
@option(
    "--revision",
    group=PUSH,
    metavar="BRANCH",
    default=DEFAULT_REVISION,
    show_default=True,
    help="Branch to push to; made if it does not exist.",
)
@option("--create-pr", group=PUSH, is_flag=True, help="Open a pull request with it.")
@ALL_SIDECARS
@LOW_CPU_MEM
@WORKERS
@OVERWRITE
@RESTART
@dry_run_option
@yes_option
@offline_option
@output_options
@click.pass_obj
def command(
    output: Output,
    base: str,
    targets: tuple[str, ...],
    delta: str,
    codec: ops.CodecChoice,
    form: str,
    encoding: Encoding | None,
    checksum: Algorithm | None,
    new_rows: NewRows,
    base_id: str,
    portable: bool,
    adapter: str | None,
    hub_repo_id: str,
    public: bool,
    revision: str,
    create_pr: bool,
    all_sidecars: bool,
    low_cpu_mem: bool,
    workers: int,
    overwrite: bool,
    restart: bool,
    dry_run: bool,
    yes: bool,
    offline: bool,
) -> None:
    """Make a delta: how a model differs from its base.

    With the base and the delta, apply-delta gives the model back bit for bit, its safetensors files
    byte for byte. The delta is decoded and compared with the model before it gets its name. If a
    push fails, the same command tries it again.
    """
    started_s = time.monotonic()
    wish = Wish(hub_repo_id, public, revision, create_pr)
    require_meaning(output, wish, asks=not (yes or dry_run))
    if form == "disk-delta":
        _refuse(
            "means nothing with --format disk-delta",
            "leave it out",
            codec=codec != "exact",
            hub_repo_id=hub_repo_id,
        )
        codec = encoding or "xor"
    elif encoding or checksum:
        raise CommandLineInvalid(
            reason="--encoding and --checksum are for --format disk-delta", hint="name the format"
        )
    checksum = checksum or "xxh3-128"
    # Before base and target are fetched, which may take hours.
    ops.require_use(
        codec, base_id=base_id, adapter=adapter, all_sidecars=all_sidecars, portable=portable
    )
    options = Options(
        workers=workers, low_cpu_mem=low_cpu_mem, overwrite=overwrite, restart=restart
    )
    if len(targets) > 1:
        _refuse(
            "is for one --target, and several are given",
            "make them one by one",
            hub_repo_id=hub_repo_id,
            adapter=adapter,
            dry_run=dry_run,
        )
        make = partial(
            ops.make_delta,
            codec=codec,
            checksum=checksum,
            new_rows=new_rows,
            base_id=base_id,
            all_sidecars=all_sidecars,
            portable=portable,
            options=options,
        )
        make_all(output, make, base, targets, Path(delta), offline=offline)
        return
    (target,) = targets
    spool = passing_directory() if dry_run else None  # a dry run fetches no weights
    sources = base_source, target_source = (
        located(output, base, offline=offline, spool=spool),
        located(output, target, offline=offline, spool=spool),
    )
    lora = None
    if adapter is not None:
        lora = located(output, adapter, kind="adapter", offline=offline, spool=spool)
    job = ops.plan_make_delta(
        base_source,
        target_source,
        delta,
        codec=codec,
        checksum=checksum,
        new_rows=new_rows,
        base_id=base_id,
        adapter=lora,
        all_sidecars=all_sidecars,
        portable=portable,
    )
    needs = assess_needs(job, options, [each for each in sources if isinstance(each, Located)])
    show_plan(output, job, needs)
    planned = told(job, needs)
    to_push = plan_push(job, wish, offline=offline) if hub_repo_id else None
    if to_push is not None:
        show_push_plan(output, to_push)
    if dry_run:
        more: dict[str, Any] = {"push": to_push.to_document() if to_push else None}
        if codec == "exact":
            more |= show_estimate(output, job)
        show_dry_run(output, job, needs, more)
        return
    output.kept = partial(what_is_kept, job)
    with output.progress() as progress:
        made = job.run(options, progress)
    elapsed_s = time.monotonic() - started_s
    pushed = run_push(output, to_push, made, yes=yes) if to_push is not None else None
    show_made(output, made, pushed, elapsed_s, planned, _next(made, base, form))


def _next(made: ops.MadeDelta, base: str, form: str) -> str:
    """The command that checks what base and delta make; a version of a training run is named in it
    as a link of a chain.
    """
    if form == "disk-delta":
        return command_line(["weightsmith", "verify", f"{base}+{made.target}"])
    return command_line(["weightsmith", "verify", made.target, "--base", base])


def _refuse(reason: str, hint: str, **given: object) -> None:
    """Refuse those of the options, by name and value, that are given.

    Raises: CommandLineInvalid.
    """
    named = [f"--{dashed(name)}" for name, value in given.items() if value]
    if named:
        raise CommandLineInvalid(reason=f"{', '.join(named)} {reason}", hint=hint)

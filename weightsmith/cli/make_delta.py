"""``weightsmith make-delta``."""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click

from weightsmith.cli.layout import heading, styled, table
from weightsmith.cli.make_deltas import make_all
from weightsmith.cli.options import (
    INPUTS,
    OUTPUT,
    PUSH,
    SOURCE,
    Command,
    dry_run_option,
    offline_option,
    option,
    output_option,
    output_options,
    yes_option,
)
from weightsmith.cli.output import Output
from weightsmith.cli.plan_view import show_dry_run, show_plan, told
from weightsmith.cli.push_view import pushed_line, require_meaning, run_push, show_push_plan
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
from weightsmith.ops.deltas.additive import Loss
from weightsmith.ops.deltas.estimate import estimate
from weightsmith.ops.job import needs as assess_needs
from weightsmith.ops.push import (
    DEFAULT_REVISION,
    Pushed,
    Wish,
    plan_push,
)
from weightsmith.plan.align import NewRows
from weightsmith.sources.locate import Located
from weightsmith.units import format_duration, format_percent, format_size


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
    docs="docs/make-delta.md",
)
@option("--base", group=INPUTS, type=SOURCE, required=True, help="The model it was made from.")
@option(
    "--target",
    "targets",
    group=INPUTS,
    type=SOURCE,
    multiple=True,
    required=True,
    help="The model it became; of several, each gets a directory of its name in DIR.",
)
@output_option("--delta", "delta")
@option(
    "--codec",
    group=OUTPUT,
    type=click.Choice(["exact", "add"]),
    default="exact",
    show_default=True,
    help="exact: small and bit for bit; add: FastChat's format, which loses bits.",
)
@option(
    "--format",
    "form",
    group=OUTPUT,
    type=click.Choice(["weightsmith", "disk-delta"]),
    default="weightsmith",
    show_default=True,
    help="disk-delta: a version of a training run, DIR/weight_vNNNNNN.",
)
@option(
    "--encoding",
    group=OUTPUT,
    type=click.Choice(get_args(Encoding)),
    help="With --format disk-delta: xor (default) or overwrite.",
)
@option(
    "--checksum",
    group=OUTPUT,
    type=click.Choice(ALGORITHMS),
    help="With --format disk-delta: of each tensor; default: xxh3-128.",
)
@option(
    "--new-rows",
    group=OUTPUT,
    type=click.Choice(["zero", "mean"]),
    default="zero",
    show_default=True,
    help="With --codec add, how vocabulary rows that the base lacks count.",
)
@option(
    "--base-id",
    group=OUTPUT,
    metavar="ORG/NAME@REV",
    default="",
    help="What the base is on the hub; of a base from there, it is known.",
)
@option(
    "--portable",
    group=OUTPUT,
    is_flag=True,
    help="Larger and slower, but no reader needs the compiled part.",
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
    help="Then push the delta there, with a model card; asks first.",
)
@option(
    "--public", group=PUSH, is_flag=True, help="For all to see; else the repository is private."
)
@option(
    "--revision",
    group=PUSH,
    metavar="BRANCH",
    default=DEFAULT_REVISION,
    show_default=True,
    help="Branch to push to; made if it is not there.",
)
@option("--create-pr", group=PUSH, is_flag=True, help="Offer it there by a pull request.")
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
    """Make a delta: what a model differs by from its base.

    Whoever has the base gets the model back from it with apply-delta, bit for bit, and its
    safetensors files byte for byte. What was written is read back, decoded and compared before the
    delta gets its name. A push that failed is repeated by the same command.
    """
    started_s = time.monotonic()
    wish = Wish(hub_repo_id, public, revision, create_pr)
    require_meaning(output, wish, asks=not (yes or dry_run))
    if form == "disk-delta":
        _require_plain_version(
            codec=codec != "exact",
            base_id=base_id,
            portable=portable,
            adapter=adapter,
            hub_repo_id=hub_repo_id,
            all_sidecars=all_sidecars,
        )
        codec = encoding or "xor"
    elif encoding or checksum:
        raise CommandLineInvalid(
            reason="--encoding and --checksum are for --format disk-delta", hint="name the format"
        )
    checksum = checksum or "xxh3-128"
    options = Options(
        workers=workers, low_cpu_mem=low_cpu_mem, overwrite=overwrite, restart=restart
    )
    if len(targets) > 1:
        _require_one(hub_repo_id=hub_repo_id, adapter=adapter, dry_run=dry_run)
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
        more = {"push": to_push.to_document() if to_push else None}
        show_dry_run(output, job, needs, more | _estimated(output, job, codec))
        return
    output.kept = partial(what_is_kept, job)
    with output.progress() as progress:
        made = job.run(options, progress)
    elapsed_s = time.monotonic() - started_s
    pushed = run_push(output, to_push, made, yes=yes) if to_push is not None else None
    _show(output, made, pushed, elapsed_s, planned)


def _require_one(**given: object) -> None:
    """Raises: CommandLineInvalid, for what means one delta where several are to be made."""
    named = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if named:
        reason = f"{', '.join(named)} is for one --target, and several are given"
        raise CommandLineInvalid(reason=reason, hint="make them one by one")


def _estimated(output: Output, job: ops.DeltaJob, codec: ops.CodecChoice) -> dict[str, Any]:
    """What an exact delta would come to, said and as JSON values."""
    if codec != "exact":
        return {}
    rules = (rule for shard in job.plan.shards for rule in shard.tensors)
    found = estimate(rules, job.bindings.inputs, coded=job.plan.delta.coded)
    size = f"{format_size(found.nbytes)} ± {format_size(found.error_nbytes)}"
    changed = f"{format_percent(found.changed)} ± {format_percent(found.error_changed)}"
    rows = [
        ("expect", f"{size}, {format_percent(found.share)} of the target"),
        ("changed", f"{changed} of the weights"),
        ("", f"by {format_size(found.read_nbytes)} of it; a merged LoRA comes out smaller"),
    ]
    output.plan(table(rows, width=output.width))
    output.plan()
    return {"estimate": found.to_document()}


def _require_plain_version(**given: object) -> None:
    """Raises: CommandLineInvalid, for what a version of a training run has no place for."""
    named = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if named:
        reason = f"{', '.join(named)} means nothing with --format disk-delta"
        raise CommandLineInvalid(reason=reason, hint="leave it out")


def _show(
    output: Output,
    made: ops.MadeDelta,
    pushed: Pushed | None,
    elapsed_s: float,
    planned: Mapping[str, Any],
) -> None:
    share = made.nbytes / made.target_nbytes if made.target_nbytes else 0.0
    said = "already done: every digest holds"
    if not made.already_done:
        said = f"in {format_duration(elapsed_s)}"
        said += f", {made.kept} kept from before" if made.kept else ""
        said += ", read back, decoded and compared" if made.loss is None else ", read back"
    if made.loss is not None:
        _show_loss(output, made.loss)
    size = f"{format_size(made.nbytes)}, {format_percent(share)} of the target"
    lines = [f"{styled('done', 'green')}  {made.target}", f"      {size}, {said}"]
    lines += [f"      {made.low_rank}"] if made.low_rank else []
    lines += [pushed_line(pushed)] if pushed is not None else []
    output.result(
        {
            **planned,
            "schema": "weightsmith.make-delta/1",
            "delta": str(made.target),
            "already_done": made.already_done,
            "files_kept": made.kept,
            "nbytes": made.nbytes,
            "target_nbytes": made.target_nbytes,
            "elapsed_s": round(elapsed_s, 3),
            "fingerprint": made.manifest.fingerprint,
            "files": list(made.manifest.files),
            "sidecars": list(made.manifest.sidecars),
            "low_rank": made.low_rank,
            "loss": None if made.loss is None else _loss_document(made.loss),
            "pushed": None if pushed is None else pushed.to_document(),
        },
        human="\n".join(lines),
        quiet=str(made.target),
    )


def _show_loss(output: Output, loss: Loss) -> None:
    """What adding the delta will not give back, the worst tensors first."""
    if not loss.tensors:
        return
    worst = sorted(loss.tensors.items(), key=lambda each: -each[1].share)[:5]
    output.line(heading("what this delta will not restore"))
    rows = [("all", loss.whole), *worst]
    output.line(
        table(
            [
                (
                    name,
                    f"{format_percent(each.share)} of the weights",
                    f"off by up to {each.largest:.2g}",
                )
                for name, each in rows
            ],
            width=output.width,
        )
    )
    output.hint("an exact delta restores every bit, and is smaller: --codec exact")


def _loss_document(loss: Loss) -> dict[str, object]:
    return {
        **loss.whole.to_document(),
        "tensors": {name: each.to_document() for name, each in loss.tensors.items()},
    }

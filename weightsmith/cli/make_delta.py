"""``weightsmith make-delta``."""

import time
from typing import get_args

import click

from weightsmith.cli.layout import heading, styled, table
from weightsmith.cli.options import (
    INPUTS,
    OUTPUT,
    SOURCE,
    Command,
    dry_run_option,
    offline_option,
    option,
    output_options,
)
from weightsmith.cli.output import Output
from weightsmith.cli.plan_view import show_dry_run, show_plan
from weightsmith.cli.run_options import LOW_CPU_MEM, OVERWRITE, RESTART, WORKERS
from weightsmith.cli.sources import located
from weightsmith.engine.bindings import Options
from weightsmith.ops import make_delta as ops
from weightsmith.ops.job import needs as assess_needs
from weightsmith.ops.subtract import Loss
from weightsmith.plan.align import NewRows
from weightsmith.units import format_duration, format_size


@click.command(
    "make-delta",
    cls=Command,
    examples=[
        "weightsmith make-delta --base ./llama-7b --target ./my-7b --delta ./my-7b-delta",
        "weightsmith make-delta --base ./llama-7b --target ./my-7b --delta ./d --codec add",
    ],
    aliases={
        "base-model-path": "base",
        "target-model-path": "target",
        "delta-path": "delta",
    },
    docs="docs/make-delta.md",
)
@option("--base", group=INPUTS, type=SOURCE, required=True, help="The model it was made from.")
@option("--target", group=INPUTS, type=SOURCE, required=True, help="The model it became.")
@option(
    "-o",
    "--output",
    "--delta",
    "delta",
    group=OUTPUT,
    type=click.Path(),
    metavar="DIR",
    required=True,
    help="Directory to make.",
)
@option(
    "--codec",
    group=OUTPUT,
    type=click.Choice(get_args(ops.CodecChoice)),
    default="exact",
    show_default=True,
    help="exact: small and bit for bit; add: FastChat's format, which loses bits.",
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
@LOW_CPU_MEM
@WORKERS
@OVERWRITE
@RESTART
@dry_run_option
@offline_option
@output_options
@click.pass_obj
def command(
    output: Output,
    base: str,
    target: str,
    delta: str,
    codec: ops.CodecChoice,
    new_rows: NewRows,
    base_id: str,
    low_cpu_mem: bool,
    workers: int,
    overwrite: bool,
    restart: bool,
    dry_run: bool,
    offline: bool,
) -> None:
    """Make a delta: what a model differs by from its base.

    Whoever has the base gets the model back from it with apply-delta, bit for bit, and its
    safetensors files byte for byte. What was written is read back, decoded and compared before the
    delta gets its name.
    """
    started_s = time.monotonic()
    options = Options(
        workers=workers, low_cpu_mem=low_cpu_mem, overwrite=overwrite, restart=restart
    )
    job = ops.plan_make_delta(
        located(output, base, offline=offline),
        located(output, target, offline=offline),
        delta,
        codec=codec,
        new_rows=new_rows,
        base_id=base_id,
    )
    needs = assess_needs(job, options)
    show_plan(output, job, needs)
    if dry_run:
        show_dry_run(output, job, needs)
        return
    with output.progress() as progress:
        made = ops.carry_out_delta(job, options, progress)
    _show(output, made, time.monotonic() - started_s)


def _show(output: Output, made: ops.MadeDelta, elapsed_s: float) -> None:
    share = made.nbytes / made.target_nbytes if made.target_nbytes else 0.0
    said = "already done: every digest holds"
    if not made.already_done:
        said = f"in {format_duration(elapsed_s)}"
        said += ", read back, decoded and compared" if made.loss is None else ", read back"
    if made.loss is not None:
        _show_loss(output, made.loss)
    size = f"{format_size(made.nbytes)}, {share:.1%} of the target"
    output.result(
        {
            "schema": "weightsmith.make-delta/1",
            "delta": str(made.directory),
            "already_done": made.already_done,
            "nbytes": made.nbytes,
            "target_nbytes": made.target_nbytes,
            "elapsed_s": round(elapsed_s, 3),
            "fingerprint": made.manifest.fingerprint,
            "files": list(made.manifest.files),
            "sidecars": list(made.manifest.sidecars),
            "loss": None if made.loss is None else _loss_document(made.loss),
        },
        human=f"{styled('done', 'green')}  {made.directory}\n      {size}, {said}",
        quiet=str(made.directory),
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
                (name, f"{each.share:.2%} of the weights", f"off by up to {each.largest:.2g}")
                for name, each in rows
            ],
            width=output.width,
        )
    )
    output.hint("an exact delta restores every bit, and is smaller: --codec exact")


def _loss_document(loss: Loss) -> dict[str, object]:
    return {
        **loss.whole.to_json(),
        "tensors": {name: each.to_json() for name, each in loss.tensors.items()},
    }

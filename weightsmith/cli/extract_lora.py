"""``weightsmith extract-lora``."""

import time
from functools import partial
from typing import Final

import click

from weightsmith.cli.layout import heading, one_line_rows, styled
from weightsmith.cli.options import (
    INPUTS,
    OUTPUT,
    SOURCE,
    Command,
    dry_run_option,
    offline_option,
    option,
    output_option,
    output_options,
)
from weightsmith.cli.output import Output, command_line
from weightsmith.cli.plan_view import show_dry_run, show_plan
from weightsmith.cli.run_options import (
    LOW_CPU_MEM,
    OVERWRITE,
    RESTART,
    WORKERS,
    what_is_kept,
)
from weightsmith.cli.sources import located
from weightsmith.engine.options import Options
from weightsmith.ops import extract_lora as ops
from weightsmith.ops.job import needs as assess_needs
from weightsmith.sources.locate import Located
from weightsmith.units import format_duration, format_percent, format_size

_SHOWN: Final = 5
"""How many tensors are told by name, the largest error first."""


class _Rank(click.ParamType[ops.Rank]):
    """``auto``, or a number."""

    name = "rank"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> ops.Rank:
        if value == "auto":
            return "auto"
        try:
            return int(str(value))
        except ValueError:
            return self.fail(f"{value} is neither a number nor auto", param, ctx)


@click.command(
    "extract-lora",
    cls=Command,
    examples=[
        "weightsmith extract-lora --base ./llama-7b --target ./my-7b ./my-lora",
        "weightsmith extract-lora --base ./llama-7b --target ./my-7b ./my-lora --rank 32",
    ],
    aliases={"base-model-path": "base", "target-model-path": "target"},
    meant={"model": "target", "lora": "output", "adapter": "output"},
    positional=("base", "target", "adapter"),
    docs="how-to/extract-lora",
)
@option("--base", group=INPUTS, type=SOURCE, required=True, help="The original model.")
@option(
    "--target",
    group=INPUTS,
    type=SOURCE,
    required=True,
    help="The model that was trained from it.",
)
@output_option("adapter")
@option(
    "--rank",
    group=OUTPUT,
    type=_Rank(),
    metavar="N|auto",
    default="auto",
    show_default=True,
    help="auto: the rank that each change has; N: the nearest change of rank N.",
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
    adapter: str,
    rank: ops.Rank,
    low_cpu_mem: bool,
    workers: int,
    overwrite: bool,
    restart: bool,
    dry_run: bool,
    offline: bool,
) -> None:
    """Extract a LoRA adapter from a fine-tune and its base.

    Peft can load the adapter. It is merged into the base again, in memory, to show how far the
    result is from the fine-tune. Changes that no adapter can hold are listed.
    """
    started_s = time.monotonic()
    options = Options(
        workers=workers, low_cpu_mem=low_cpu_mem, overwrite=overwrite, restart=restart
    )
    ground, wanted = (located(output, each, offline=offline) for each in (base, target))
    with output.progress() as progress:
        job = ops.plan_extract_lora(ground, wanted, adapter, rank=rank, progress=progress)
    fetched = [each for each in (ground, wanted) if isinstance(each, Located)]
    needs = assess_needs(job, options, fetched)
    show_plan(output, job, needs)
    if dry_run:
        show_dry_run(output, job, needs, {"ranks": dict(job.ranks)})
        return
    output.kept = partial(what_is_kept, job)
    with output.progress() as progress:
        made = job.run(options, progress)
    _show(output, job, made, time.monotonic() - started_s)


def _show(output: Output, job: ops.ExtractJob, made: ops.ExtractedLora, elapsed_s: float) -> None:
    nbytes = sum(file.size for file in made.manifest.files.values())
    left = made.left
    _show_left(output, made)
    said = (
        "already done: every digest holds"
        if made.already_done
        else f"in {format_duration(elapsed_s)}"
    )
    lines = [
        f"{styled('done', 'green')}  {made.target}",
        f"      {format_size(nbytes)}, {said}",
        f"      merged back, {format_percent(left.share)} of the changed weights differ",
    ]
    output.result(
        {
            "schema": "weightsmith.extract-lora/1",
            "target": str(made.target),
            "already_done": made.already_done,
            "nbytes": nbytes,
            "elapsed_s": round(elapsed_s, 3),
            "fingerprint": made.manifest.fingerprint,
            "ranks": dict(job.ranks),
            "notes": list(job.plan.notes),
            "left": left.to_document(),
            "tensors": [each.to_document() for each in made.tensors],
        },
        human="\n".join(lines),
        quiet=str(made.target),
        then=command_line(["weightsmith", "inspect", made.target]),
    )


def _show_left(output: Output, made: ops.ExtractedLora) -> None:
    """Print a table of what merging the adapter does not restore, the largest errors first."""
    output.line(heading("what merging the adapter does not restore"))
    rows = [("", "kept as", "of the change", "of the weights")]
    rows += [
        (
            each.name,
            f"rank {each.rank}" if each.rank else "whole" if not each.left.changed else "left out",
            format_percent(each.error),
            format_percent(each.left.share),
        )
        for each in made.tensors[:_SHOWN]
    ]
    output.line(one_line_rows(rows, width=output.width, shrink=(0,), right=(2, 3)))
    if len(made.tensors) > _SHOWN:
        output.line(f"and {len(made.tensors) - _SHOWN} more with less (--json lists all)")

"""``weightsmith clean-cache``."""

import re
import sys
import time
from collections.abc import Sequence
from typing import Any, Final, get_args

import click

from weightsmith.cli.layout import heading, stacked, styled
from weightsmith.cli.options import (
    INPUTS,
    SAFETY,
    SIZE,
    Command,
    FilePath,
    dry_run_option,
    option,
    output_options,
    yes_option,
)
from weightsmith.cli.output import Output
from weightsmith.ops import clean_cache as ops
from weightsmith.ops.cache_rows import Row
from weightsmith.ops.clean_cache import CleanPlan, Clock
from weightsmith.units import format_size

UNITS_S: Final = {"h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0, "y": 365 * 86_400.0}
KIND_NAMES: Final = {
    "duplicates": ".bin twins",
    "incomplete": "incomplete",
    "unreferenced": "unreferenced",
}


class Age(click.ParamType[float]):
    """A time span in hours, days, weeks or years."""

    name = "age"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """``"30d"`` -> 2592000.0 seconds."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+)\s*([hdwy])", value.strip().lower(), re.ASCII)
        if match is None:
            self.fail(f"{value!r} is no time span; write it as 12h, 30d, 8w or 1y", param, ctx)
        return int(match[1]) * UNITS_S[match[2]]


@click.command(
    "clean-cache",
    cls=Command,
    examples=[
        "weightsmith clean-cache",
        "weightsmith clean-cache --max-size 100GB --keep 'lmsys/*' --dry-run",
    ],
    docs="docs/clean-cache.md",
)
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@option(
    "--older-than",
    group=INPUTS,
    type=Age(),
    metavar="AGE",
    help="What was not used for so long: 12h, 30d, 8w, 1y.",
)
@option(
    "--max-size",
    group=INPUTS,
    type=SIZE,
    help="Evict until the cache is no larger, the least recently used first.",
)
@option(
    "--keep-last",
    group=INPUTS,
    type=click.IntRange(min=1),
    help="All but the newest N revisions of each repository.",
)
@option(
    "--duplicates",
    group=INPUTS,
    is_flag=True,
    help=".bin weights beside safetensors of the same revision.",
)
@option(
    "--keep",
    group=SAFETY,
    metavar="PATTERN",
    multiple=True,
    help="Repositories that stay in any case, such as 'lmsys/*'; repeatable.",
)
@option(
    "--by",
    group=INPUTS,
    type=click.Choice(get_args(Clock)),
    default="used",
    help="Go by when files were last used (default), or by when they were downloaded.",
)
@option(
    "--cache-dir",
    group=INPUTS,
    type=FilePath(file_okay=False, exists=True),
    metavar="DIR",
    help="Another cache than that of HF_HOME.",
)
@dry_run_option
@yes_option
@output_options
@click.pass_obj
def command(
    output: Output,
    sources: tuple[str, ...],
    older_than: float | None,
    max_size: int | None,
    keep_last: int | None,
    duplicates: bool,
    keep: tuple[str, ...],
    by: Clock,
    cache_dir: str | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Make room in the hub's cache.

    SOURCE is an alias or a hub id. Selectors narrow each other. Without any, on a terminal, there
    is a table to choose from; with --yes, only incomplete downloads and unreferenced blobs go.
    """
    plan = ops.plan_clean_cache(
        *sources,
        older_than_s=older_than,
        max_nbytes=max_size,
        keep_last=keep_last,
        keep=keep,
        duplicates=duplicates,
        by=by,
        cache=cache_dir,
    )
    selecting = bool(sources or older_than or max_size or duplicates) or keep_last is not None
    for problem in plan.cache.unreadable:
        output.warning(f"left alone: {problem}")
    if plan.rows and output.can_ask and not (selecting or yes or dry_run):
        _show(output, plan, numbered=True)
        plan = ops.choose(plan, _ask(output, plan.rows))
    else:
        _show(output, plan)
    for note in plan.notes:
        output.warning(note)
    going = f"{len(plan.removed)} of {len(plan.rows)} rows, {format_size(plan.freed_nbytes)}"
    document = {"schema": "weightsmith.clean-cache/1", "deleted": False, **plan.to_document()}
    if dry_run:
        output.result(document, human=f"dry run: {going} would go")
    elif not plan.removed:
        output.result(document, human="nothing to delete")
        if plan.rows and not selecting:
            output.hint("say what may go: weightsmith clean-cache --older-than 30d --dry-run")
    elif output.confirm(f"delete {going}?", yes=yes):
        done = ops.carry_out(plan)
        freed, left = format_size(done.freed_nbytes), format_size(done.left_nbytes)
        output.result(
            document | done.to_document() | {"deleted": True},
            human=f"{styled('done', 'green')}  {freed} freed, {left} left",
        )
    else:
        output.result(document, human="nothing was deleted")


def _show(output: Output, plan: CleanPlan, *, numbered: bool = False) -> None:
    """The table: what there is, when it was used, and what becomes of it."""
    cache = plan.cache
    output.plan(heading(f"{cache.root}  {format_size(cache.nbytes)}"))
    if not plan.rows:
        return
    now = time.time()
    rows = [
        ["" if numbered else "go", "repository", "revision", "size", "last used", "refs", "why"]
    ]
    for number, row in enumerate(plan.rows, 1):
        mark = str(number) if numbered else "x" if row.remove else ""
        what = row.revision[:12]
        if row.kind != "revision":
            what = f"{what} {KIND_NAMES[row.kind]}".strip()
        used = _ago(now - row.used) if row.used is not None else "?"
        why = "" if numbered and not row.locked else row.reason  # a choice is its own reason
        refs = ", ".join(row.refs)
        rows.append([mark, row.repo or "shared", what, format_size(row.nbytes), used, refs, why])
    if not any(why for *_, why in rows[1:]):
        rows[0][-1] = ""
    output.plan(stacked(rows, at=3, width=output.width, styles=("bold",), right=(0, 3)))
    output.plan()


def _ask(output: Output, rows: Sequence[Row]) -> set[str]:
    """Ids of the rows that a person names by their numbers; asks again until it makes sense."""
    while True:
        output.line("which? numbers and ranges (1,3-5), 'all', or nothing to leave all as it is")
        answer = sys.stdin.readline().strip().lower()
        if answer == "all":
            return {row.id for row in rows}
        parts = [part for part in re.split(r"[,\s]+", answer) if part]
        chosen: set[str] = set()
        for part in parts:
            match = re.fullmatch(r"(\d+)(?:-(\d+))?", part, re.ASCII)
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
            if not 1 <= first <= last <= len(rows):
                output.line(f"{part} is none of 1 to {len(rows)}")
                break
            chosen |= {row.id for row in rows[first - 1 : last]}
        else:
            return chosen


def _ago(seconds: float) -> str:
    days = int(seconds // UNITS_S["d"])
    return "today" if days < 1 else "yesterday" if days == 1 else f"{days} days ago"

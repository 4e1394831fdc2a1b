"""``weightsmith clean-cache``."""

import re
import sys
import time
from collections.abc import Sequence
from typing import Any, Final, Literal, get_args

import click

from weightsmith.cli.flags import as_flags
from weightsmith.cli.layout import heading, one_line_rows, styled, table
from weightsmith.cli.options import (
    INPUTS,
    MESSAGES,
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
from weightsmith.units import counted, format_size

Sort = Literal["size", "used", "name"]
UNITS_S: Final = {"h": 3600.0, "d": 86_400.0, "w": 7 * 86_400.0, "y": 365 * 86_400.0}
KIND_NAMES: Final = {
    "duplicates": ".bin twins",
    "incomplete": "incomplete",
    "unreferenced": "unreferenced",
    "broken": "broken",
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
        "weightsmith clean-cache --covered-by ./deltas/my-7b",
    ],
    docs="how-to/clean-cache",
)
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@option(
    "--older-than",
    group=INPUTS,
    type=Age(),
    metavar="AGE",
    help="Revisions not used for this long: 12h, 30d, 8w, 1y.",
)
@option(
    "--max-size",
    group=INPUTS,
    type=SIZE,
    help="Delete until the cache is no larger than this, longest unused first.",
)
@option(
    "--keep-last",
    group=INPUTS,
    type=click.IntRange(min=1),
    help="All but the N newest revisions of each repository.",
)
@option(
    "--duplicates",
    group=INPUTS,
    is_flag=True,
    help=".bin weights where the same revision has safetensors.",
)
@option(
    "--covered-by",
    group=INPUTS,
    metavar="DELTA",
    multiple=True,
    help="Models that this exact delta rebuilds byte for byte; delta and base stay; repeatable.",
)
@option(
    "--keep",
    group=SAFETY,
    metavar="PATTERN",
    multiple=True,
    help="Repositories that always stay, such as 'lmsys/*'; repeatable.",
)
@option(
    "--by",
    group=INPUTS,
    type=click.Choice(get_args(Clock)),
    default="used",
    help="Go by the last use of files (default), or by the time of their download.",
)
@option(
    "--list",
    "list_",
    group=MESSAGES,
    is_flag=True,
    help="Only list revisions, their sizes and when they were used.",
)
@option(
    "--sort",
    group=MESSAGES,
    type=click.Choice(get_args(Sort)),
    default="size",
    help="Order of the table: largest (default), longest unused, or by name.",
)
@option(
    "--cache-dir",
    group=INPUTS,
    type=FilePath(file_okay=False, exists=True),
    metavar="DIR",
    help="The cache's directory, if not that of HF_HOME.",
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
    covered_by: tuple[str, ...],
    keep: tuple[str, ...],
    by: Clock,
    list_: bool,
    sort: Sort,
    cache_dir: str | None,
    dry_run: bool,
    yes: bool,
) -> None:
    """Make room in the hub's cache.

    SOURCE is an alias or a hub id. What is deleted must match all the options given. Without any, a
    terminal shows a table to choose from; with --yes alone, only incomplete downloads and
    unreferenced blobs are deleted.
    """
    with output.progress() as progress:
        plan = ops.plan_clean_cache(
            *sources,
            older_than_s=older_than,
            max_nbytes=max_size,
            keep_last=keep_last,
            keep=keep,
            duplicates=duplicates,
            covered_by=covered_by,
            by=by,
            cache=cache_dir,
            progress=progress,
        )
    selecting = bool(sources or older_than or max_size or duplicates or covered_by)
    selecting = selecting or keep_last is not None
    for problem in plan.cache.unreadable:
        output.warning(f"left alone: {problem}")
    rows = _sorted(plan.rows, sort)
    if list_:
        _list(output, plan, rows)
        return
    if rows and output.can_ask and not (selecting or yes or dry_run):
        _show(output, plan, rows, numbered=True)
        plan = ops.choose(plan, _ask(output, rows))
    else:
        _show(output, plan, rows)
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


def _show(output: Output, plan: CleanPlan, rows: Sequence[Row], *, numbered: bool = False) -> None:
    """Print the table: what goes, its size, when it was used, and why it goes or stays."""
    cache = plan.cache
    output.plan(heading(f"{cache.root}  {format_size(cache.nbytes)}"))
    shown = [row for row in rows if numbered or row.remove or output.verbose]
    if shown:
        now = time.time()
        lines = [["" if numbered else "go", "what", "size", "last used", "why"]]
        for number, row in enumerate(shown, 1):
            mark = str(number) if numbered else "x" if row.remove else ""
            used = _ago(now - row.used) if row.used is not None else "?"
            # A choice is its own reason. A flag is told from a word only while it is whole.
            why = "" if numbered and not row.locked else as_flags(row.reason)
            why = "kept, see below" if row.pinned else why
            lines.append([mark, _what(row), format_size(row.nbytes), used, why])
        if not any(why for *_, why in lines[1:]):
            lines[0][-1] = ""
        page = one_line_rows(
            lines, width=output.width, shrink=(4, 1), styles=("bold",), right=(0, 2)
        )
        output.plan(page)
    staying = [row for row in rows if row not in shown]
    if staying:
        nbytes = format_size(sum(row.nbytes for row in staying))
        output.plan(f"  staying: {counted(len(staying), 'row')} of {nbytes} (-v lists all)")
    if kept := [("", _what(row), row.reason) for row in rows if row.pinned]:
        output.plan(table(kept, width=output.width, indent=0))
    for row in rows:
        if row.uncovered:
            output.plan(f"  {_what(row)} stays, {row.reason}:")
            lines = [["", each.file, as_flags(each.why)] for each in row.uncovered]
            output.plan(one_line_rows(lines, width=output.width, shrink=(2, 1)))
    if rows:
        output.plan()


def _what(row: Row) -> str:
    """``org/name@main``: what a person types to name it."""
    if row.kind == "revision":
        return f"{row.repo}@{row.refs[0] if row.refs else row.revision[:12]}"
    return f"{row.repo or 'shared'} {KIND_NAMES[row.kind]}"


def _list(output: Output, plan: CleanPlan, rows: Sequence[Row]) -> None:
    """Print all that is in the cache, a line for each revision; nothing is chosen."""
    now = time.time()
    lines = [["what", "revision", "size", "last used", "downloaded"]]
    for row in rows:
        used = _ago(now - row.used) if row.used is not None else "?"
        revision = row.revision[:12] if row.kind == "revision" else KIND_NAMES[row.kind]
        name = row.repo or "shared"
        refs = f"@{', '.join(row.refs)}" if row.refs else ""
        lines.append(
            [name + refs, revision, format_size(row.nbytes), used, _ago(now - row.modified)]
        )
    human = one_line_rows(lines, width=output.width, shrink=(0,), styles=("bold",), right=(2,))
    document = {"schema": "weightsmith.clean-cache/1", "deleted": False, **plan.to_document()}
    title = heading(f"{plan.cache.root}  {format_size(plan.cache.nbytes)}")
    names = dict.fromkeys(row.repo for row in rows if row.repo)
    output.result(document, human=f"{title}\n{human}", quiet="\n".join(names))


def _sorted(rows: Sequence[Row], by: Sort) -> list[Row]:
    """Largest, least recently used, or by name first."""
    match by:
        case "size":
            return sorted(rows, key=lambda row: (-row.nbytes, row.id))
        case "used":
            return sorted(rows, key=lambda row: (row.used or row.modified, row.id))
        case "name":
            return sorted(rows, key=lambda row: row.id)


def _ask(output: Output, rows: Sequence[Row]) -> set[str]:
    """Ask which rows to delete, by number or name, until the answer is clear; return their ids."""
    while True:
        output.line("which? numbers (1,3-5), names, 'all', or nothing to leave all as it is")
        answer = sys.stdin.readline().strip()
        if answer.lower() == "all":
            return {row.id for row in rows}
        parts = [part for part in re.split(r"[,\s]+", answer) if part]
        found = [_named(part, rows) for part in parts]
        if unknown := [part for part, ids in zip(parts, found, strict=True) if not ids]:
            output.line(f"{unknown[0]} is neither a number from 1 to {len(rows)} nor a name there")
        else:
            return set().union(*found)


def _named(part: str, rows: Sequence[Row]) -> set[str]:
    """Ids of the rows that a number, a range or a name stands for; empty if there are none."""
    if match := re.fullmatch(r"(\d+)(?:-(\d+))?", part, re.ASCII):
        first, last = int(match[1]), int(match[2] or match[1])
        return (
            {row.id for row in rows[first - 1 : last]} if 1 <= first <= last <= len(rows) else set()
        )
    name = part.casefold()
    return {row.id for row in rows if name in {row.repo.casefold(), _what(row).casefold()}}


def _ago(seconds: float) -> str:
    days = int(seconds // UNITS_S["d"])
    return "today" if days < 1 else "yesterday" if days == 1 else f"{days} days ago"

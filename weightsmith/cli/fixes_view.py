"""What `verify --fix` found damaged, and what became of it, as a person sees it."""

from pathlib import Path
from typing import Final

import click

from weightsmith.cli.checks_view import show_hints
from weightsmith.cli.layout import heading, styled, table
from weightsmith.cli.output import Output
from weightsmith.engine.options import Options
from weightsmith.errors import printable
from weightsmith.ops.fix.fix import fix_files
from weightsmith.ops.fix.report import FixReport
from weightsmith.units import counted, format_size

STYLES: Final = {"fixed": "green", "can be fixed": "yellow", "left": "red"}


def run_fix(
    output: Output,
    folder: str,
    truth: str | None,
    base: str | None,
    *,
    dry_run: bool,
    offline: bool,
    workers: int,
) -> FixReport:
    """Fix a folder, or see what could be fixed, and show every damaged file.

    Raises: UsageError, for a source that is no directory here; as `fix_files`.
    """
    path = Path(folder)
    if not path.is_dir():
        said = f"--fix wants a directory; what is fetched of {folder} is mended by"
        raise click.UsageError(f"{said} weightsmith download")
    output.plan_is_result = dry_run
    with output.progress() as progress:
        found = fix_files(
            path,
            source=truth,
            base=base,
            dry_run=dry_run,
            offline=offline,
            options=Options(workers=workers),
            progress=progress,
        )
    if found.files:
        output.plan(heading(f"{counted(len(found.files), 'damaged file')} in {folder}"))
    for each in found.files:
        output.plan(f"  {styled(each.outcome, STYLES[each.outcome])}  {printable(each.file)}")
        size = f", {format_size(each.nbytes)}" if each.nbytes else ""
        rows = [(each.fault,), (each.how + size,)]
        output.plan(table(rows, width=output.width, styles=(), indent=4))
    return found


def tell_fixes(output: Output, found: FixReport) -> int:
    """The result of a dry run; returns the exit code."""
    left = sum(each.outcome == "left" for each in found.files)
    able = len(found.files) - left
    said = f"{counted(able, 'file')} can be fixed" if found.files else "nothing is damaged"
    said += f", {left} cannot" * bool(left)
    output.result(
        {"schema": "weightsmith.fix/1", **found.to_document()},
        human=f"dry run: nothing was written; {said}",
        quiet="\n".join(each.file for each in found.files),
    )
    show_hints(output, found.hints)
    return 0 if found.complete else 1

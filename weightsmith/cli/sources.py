"""Reach a SOURCE for a command, telling the person what is found and fetched on the way."""

import os
from pathlib import Path

import click

from weightsmith import fs
from weightsmith.cli.output import Output
from weightsmith.sources.locate import Wanted, locate


def located(
    output: Output,
    source: str,
    *,
    kind: Wanted = "model",
    offline: bool = False,
    spool: Path | None = None,
) -> str | os.PathLike[str]:
    """The source as a path; with `spool` as `sources.locate.locate` has it."""
    with output.progress() as progress:
        return locate(
            source,
            kind=kind,
            offline=offline,
            spool=spool,
            note=output.line_once,
            progress=progress,
        )


def passing_directory() -> Path:
    """A directory that is gone when the command ends."""
    context = click.get_current_context()
    return context.with_resource(fs.scratch_directory())

"""``weightsmith download``."""

from collections.abc import Iterator
from typing import Final, get_args

import click

from weightsmith.cli.checks_view import tokenizer_faults
from weightsmith.cli.layout import heading, styled, table
from weightsmith.cli.options import (
    INPUTS,
    OUTPUT,
    Command,
    FilePath,
    dry_run_option,
    offline_option,
    option,
    output_options,
)
from weightsmith.cli.output import Output, command_line
from weightsmith.ops import download as ops
from weightsmith.ops.download import Resolved, WeightFormat
from weightsmith.units import counted, format_size

KEPT: Final = "what has arrived is kept, whole files and parts of files"


@click.command(
    "download",
    cls=Command,
    examples=[
        "weightsmith download huggyllama/llama-7b",
        "weightsmith download lmsys/vicuna-7b-delta-v1.1@main --local-dir ./vicuna-delta",
    ],
    docs="how-to/download",
)
@click.argument("source")
@option(
    "-o",
    "--output",
    "--local-dir",
    "local_dir",
    group=OUTPUT,
    type=FilePath(file_okay=False),
    metavar="DIR",
    help="Where to put the files; default: the hub's cache, where other tools find them.",
)
@option("--revision", group=INPUTS, metavar="REV", help="Branch, tag or commit; default: main.")
@option(
    "--format",
    "weights",
    group=INPUTS,
    type=click.Choice(get_args(WeightFormat)),
    default="auto",
    help="Weights to take if the repository has both; auto (default): safetensors.",
)
@offline_option
@dry_run_option
@output_options
@click.pass_obj
def command(
    output: Output,
    source: str,
    local_dir: str | None,
    revision: str | None,
    weights: WeightFormat,
    offline: bool,
    dry_run: bool,
) -> None:
    """Fetch a model from the hub and check every file.

    SOURCE is an alias such as llama-7b, or a hub id: ORG/NAME or ORG/NAME@REVISION. The weights are
    fetched in one format, with the files that belong to them. After an interruption the same
    command goes on where it stopped.
    """
    output.line(styled(f"looking for {source}", "dim"))
    plan = ops.plan_download(
        source,
        local_dir=local_dir,
        revision=revision,
        weights=weights,
        offline=offline,
        note=output.sentence,
    )
    output.plan(heading("download"))
    output.plan(table(list(_rows(plan)), width=output.width))
    output.plan()
    folder = str(plan.place.folder)
    if dry_run:
        document = {"schema": "weightsmith.download-plan/1", **plan.to_document()}
        output.result(document, human="dry run: nothing was written", quiet=folder)
        return
    output.kept = lambda: KEPT
    with output.progress() as progress:
        done = ops.carry_out(plan, progress)
    nbytes = format_size(sum(file.nbytes for file in done.fetched))
    fetched = (
        f"{counted(len(done.fetched), 'file')} fetched, {nbytes}"
        if done.fetched
        else "nothing to fetch"
    )
    checked = f"all {len(plan.files)} have the hub's hashes"
    # The cache's files are links to blobs that others use: they are repaired in a copy.
    repaired = () if local_dir is not None else ("--local-copy", "DIR")
    faults, cure = tokenizer_faults(done.folder, *repaired)
    if plan.selection.format == "versions":  # they bring no tokenizer, and need none
        faults = []
    if faults:
        output.sentence(
            f"its tokenizer and config files have {counted(len(faults), 'known fault')}:"
        )
        for fault in output.shown(faults):
            output.sentence(f"  {fault}")
    named = f"{source}@{revision}" if revision is not None else source
    output.result(
        {"schema": "weightsmith.download/1", **done.to_document(), "faults": faults},
        human=f"{styled('done', 'green')}  {folder}\n      {fetched}; {checked}",
        quiet=folder,
        then=cure if faults else command_line(["weightsmith", "inspect", local_dir or named]),
    )


def _rows(plan: Resolved) -> Iterator[tuple[str, str]]:
    """Rows on what was found, and what of it is to be fetched."""
    listing = plan.listing
    commit = listing.commit[:12]
    at = commit if listing.revision == listing.commit else f"{listing.revision}, now {commit}"
    weights = sum(file.name.endswith((".safetensors", ".bin", ".pth")) for file in plan.files)
    others = counted(len(plan.files) - weights, "other")
    kind = plan.selection.format
    held = "of versions" if kind == "versions" else f"with {kind} weights"
    what = f"{weights} {held}, {others}"
    yield "repository", listing.repo_id
    yield "revision", at
    yield "files", f"{what}, {format_size(plan.nbytes)}"
    here = f", {format_size(plan.nbytes - plan.fetch_nbytes)} here already" if plan.here else ""
    to_fetch = f"{format_size(plan.fetch_nbytes)}{here}" if plan.to_fetch else "nothing, all here"
    yield "to fetch", to_fetch
    yield "into", str(plan.place.folder)
    for line in plan.why:
        yield "note", line

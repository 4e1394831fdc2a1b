"""``weightsmith inspect``."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from weightsmith.cli.checks_view import tokenizer_faults
from weightsmith.cli.layout import counted_files, heading, one_line_rows, styled, table
from weightsmith.cli.options import (
    INPUTS,
    SOURCE,
    Command,
    offline_option,
    option,
    output_options,
)
from weightsmith.cli.output import Output, command_line, error_document
from weightsmith.cli.sources import located, passing_directory
from weightsmith.errors import CommandLineInvalid, WeightsmithError
from weightsmith.ops.deltas.estimate import rank_bases
from weightsmith.ops.inspect import KIND_WORDS, Inspection, held_by, inspect
from weightsmith.sources.links import split
from weightsmith.units import counted, format_percent, format_size


@click.command(
    "inspect",
    cls=Command,
    examples=[
        "weightsmith inspect ./llama-7b",
        "weightsmith inspect ./vicuna-7b-delta-v1.1 --json",
        "weightsmith inspect ./my-models",
        "weightsmith inspect ./my-model --bases ./llama-7b ./mistral-7b",
    ],
    docs="how-to/inspect",
)
@click.argument("sources", type=SOURCE, nargs=-1, required=True, metavar="SOURCE...")
@option(
    "--bases",
    group=INPUTS,
    is_flag=True,
    help="Say which of the other SOURCEs the first one was made from.",
)
@offline_option
@output_options
@click.pass_obj
def command(output: Output, sources: tuple[str, ...], bases: bool, offline: bool) -> int:
    """Show what a directory holds, and what is wrong with it.

    Says whether it is a model, a delta, an adapter or a release, and lists its tensors and known
    faults. Reads headers, sidecars and a few norm weights, and runs nothing. Several SOURCES, or a
    directory of models, get a line each.
    """
    if bases:
        return _rank(output, sources[0], sources[1:], offline=offline)
    each = [inner for source in sources for inner in held_by(source)]
    if len(each) > 1:
        return _inspect_all(output, each, offline=offline)
    _inspect_one(output, each[0], offline=offline)
    return 0


def _rank(output: Output, target: str, bases: Sequence[str], *, offline: bool) -> int:
    """Print a table of the candidates, the nearest first.

    Raises: CommandLineInvalid, without any.
    """
    if not bases:
        hint = f"weightsmith inspect {target} --bases A B"
        raise CommandLineInvalid(reason="--bases needs models to choose from", hint=hint)
    spool = passing_directory()
    reach = partial(located, output, offline=offline, spool=spool)
    names = {os.fspath(reach(base)): base for base in bases}
    with output.progress() as progress:
        ranked = rank_bases(reach(target), [reach(base) for base in bases], progress=progress)
    rows = [("base", "a delta to it", "")]
    for each in ranked:
        found = each.estimate
        size = "-" if found is None else f"about {format_percent(found.share)}"
        about = each.reason if found is None else f"{format_percent(found.changed)} changed"
        rows.append((names[each.base], size, about))
    document = {
        "schema": "weightsmith.bases/1",
        "target": target,
        "bases": [
            {
                "base": names[each.base],
                "reason": each.reason,
                "estimate": each.estimate.to_document() if each.estimate else None,
            }
            for each in ranked
        ],
    }
    human = one_line_rows(rows, width=output.width, shrink=(2, 0), styles=("bold",), right=(1,))
    best = [names[each.base] for each in ranked if each.estimate is not None]
    output.result(document, human=human, quiet="\n".join(best))
    return 0


def _inspect_all(output: Output, sources: Sequence[str], *, offline: bool) -> int:
    """Print a line for each; return the exit code of the first source that cannot be read."""
    rows: list[tuple[str, ...]] = []
    documents: list[dict[str, Any]] = []
    code = 0
    for source in sources:
        try:
            found = inspect(located(output, source, offline=offline, spool=passing_directory()))
        except WeightsmithError as error:
            code = code or error.exit_code
            rows.append((source, "?", "", "", f"{error} [{error.reference}]"))
            documents.append(error_document(error, ()) | {"source": source})
            continue
        dtypes = " ".join(dtype for dtype, _ in found.dtypes[:2])
        about = found.about or found.release or found.reason
        about = about if found.kind == "delta" else found.architecture
        rows.append((source, found.kind, format_size(found.nbytes), dtypes, about))
        documents.append({"schema": "weightsmith.inspect/1", **found.to_document()})
    human = one_line_rows(
        [("source", "is", "size", "dtypes", ""), *rows],
        width=output.width,
        shrink=(4, 0),
        styles=("bold",),
        right=(2,),
    )
    document = {"schema": "weightsmith.inspect-all/1", "sources": documents}
    output.result(document, human=human, quiet="\n".join(kind for _, kind, *_ in rows))
    return code


def _inspect_one(output: Output, source: str, *, offline: bool) -> None:
    found = inspect(located(output, source, offline=offline, spool=passing_directory()))
    if found.kind == "delta":
        output.warning("this is a delta, not a model: apply it to its base")
    output.result(
        {"schema": "weightsmith.inspect/1", **found.to_document()},
        human=_page(found, output),
        quiet=found.kind,
        then=_next(found),
    )


def _next(found: Inspection) -> str:
    """The command that usually follows for a source of this kind."""
    here = ["weightsmith"]
    match found.kind:
        case "delta":
            return command_line([*here, "apply-delta", "--base", "BASE", "--delta", found.source])
        case "adapter":
            line = ["merge-lora", "--base", "BASE", "--lora", found.source, "--output", "DIR"]
            return command_line([*here, *line])
        case "training-output" | "meta":
            return command_line([*here, "convert", found.source, "DIR"])
    if not found.faults:
        return ""
    if Path(found.source).is_dir():
        return tokenizer_faults(Path(found.source))[1]
    # Only a repository can be downloaded; a conversion mends what it writes, of any model.
    if "://" in found.source or len(split(found.source)) > 1:
        line = ["convert", found.source, "DIR"]
    else:
        line = ["download", found.source, "--local-dir", "DIR"]
    return f"to mend a copy of it: {command_line([*here, *line])}"


def _page(found: Inspection, output: Output) -> str:
    dtypes = ", ".join(f"{dtype} {format_size(nbytes)}" for dtype, nbytes in found.dtypes)
    rows = [("is", KIND_WORDS[found.kind]), ("because", found.reason)]
    if found.release:
        rows.append(("known as", found.release))
    if found.architecture:
        rows.append(("built as", found.architecture))
    if found.quantised:
        rows.append(("quantised", found.quantised))
    if found.tensors:
        parameters = counted(found.parameters, "parameter")
        rows.append(("tensors", f"{found.tensors}, {parameters}, {dtypes}"))
    rows.append(("weights", counted_files(found.files)))
    if found.sidecars:
        rows.append(("files", ", ".join(found.sidecars)))
    if found.made_by:
        rows.append(("made by", f"{found.made_by}; fingerprint {found.fingerprint[:16]}..."))
    rows += [("note", output.brief(note)) for note in found.notes]
    faults = [f"{fault_id}: {evidence}" for fault_id, evidence in found.faults]
    rows += [("fault", line) for line in output.shown(faults)]
    title = heading(found.source)
    if found.kind == "delta":
        title += styled("  DELTA, NOT A MODEL", "yellow")
    return f"{title}\n{table(rows, width=output.width)}"

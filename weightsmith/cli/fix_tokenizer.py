"""``weightsmith fix-tokenizer``."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast, get_args

import click

from weightsmith.cli.checks_view import STYLES
from weightsmith.cli.faults_view import fault_document, show_faults
from weightsmith.cli.layout import styled
from weightsmith.cli.options import (
    OUTPUT,
    REPAIR,
    SAFETY,
    Command,
    FilePath,
    dry_run_option,
    option,
    output_options,
)
from weightsmith.cli.output import Output, command_line
from weightsmith.ops import fix_tokenizer as ops
from weightsmith.ops.verify.report import Verdict
from weightsmith.repair.contents import MERGES, TOKENIZER_JSON, VOCAB, Reader
from weightsmith.repair.detect import Diagnosis
from weightsmith.repair.faults import format_object
from weightsmith.repair.folder import Folder
from weightsmith.repair.proof import Proof
from weightsmith.units import counted, format_size

SCHEMA: Final = "weightsmith.fix-tokenizer/1"
EXIT_FAULTS: Final = 1
"""The check ran and the answer is no."""

_COLORS: Final = {"+": "green", "-": "red", "@": "cyan"}


@click.command(
    "fix-tokenizer",
    cls=Command,
    examples=[
        "weightsmith fix-tokenizer ./vicuna-7b --check",
        "weightsmith fix-tokenizer ./vicuna-7b",
    ],
    docs="reference/repairs",
)
@click.argument("folder", metavar="[DIR]", type=FilePath(path_type=Path), default=Path())
@option("--check", group=SAFETY, is_flag=True, help="Only report; exit 1 if anything is wrong.")
@option(
    "-o",
    "--output",
    "--local-copy",
    "local_copy",
    group=OUTPUT,
    metavar="DIR",
    type=FilePath(path_type=Path),
    help="Leave DIR as it is, and write repaired copies of its small files here.",
)
@option(
    "--for",
    "reader",
    group=REPAIR,
    type=click.Choice([*get_args(Reader), "all"]),
    default="all",
    metavar="READER",
    help="The program that will read the files: transformers-4, transformers-5, llama.cpp or all.",
)
@option(
    "--exact-class",
    group=REPAIR,
    is_flag=True,
    help="Set the tokenizer class with which all readers give the same ids, not Llama's.",
)
@dry_run_option
@output_options
@click.pass_obj
def command(
    output: Output,
    folder: Path,
    check: bool,
    local_copy: Path | None,
    reader: str,
    exact_class: bool,
    dry_run: bool,
) -> int:
    """Repair tokenizer and config files, and prove the result.

    Looks in DIR (default: here) for known faults of tokenizer and config files, of any family. The
    changes are shown as a diff, and proved against sentencepiece or tokenizers before a file is
    touched; the old version of each changed file is kept as .bak, or as .bak.2 where that name is
    taken. tokenizer.model is never changed. Where a whole family of models was published that way,
    a fault is only remarked on, unless --for or --exact-class asks for its repair.
    """
    meant = None if reader == "all" else cast("Reader", reader)
    if check:
        output.plan_is_result = True
        return _check(output, folder, meant, exact_class=exact_class)
    plan = ops.plan_fix_tokenizer(folder, reader=meant, exact_class=exact_class)
    found = plan.diagnosis
    show_faults(output, found.faults, found.remarks, {})
    _show_notes(output, found)
    _show_changes(output, plan)
    if dry_run:
        _show_result(output, plan, folder, headline="dry run: nothing was written", dry_run=True)
        return 0
    result = ops.carry_out(plan, local_copy=local_copy)
    headline = f"{counted(len(result.faults), 'fault')} repaired in"
    headline += f" {counted(len(result.changes), 'file')}"
    if result.already_done:
        headline = f"already done: {headline}"
    if not result.changes:
        headline = "nothing to repair"
    left = [fault for fault in found.faults if fault.verdict == "report"]
    if left:
        headline += f", {counted(len(left), 'fault')} only reported"
    _show_result(output, result, result.folder, headline=headline)
    return 0


def _check(output: Output, folder: Path, reader: Reader | None, *, exact_class: bool) -> int:
    found = ops.check_tokenizer(folder, reader=reader, exact_class=exact_class)
    shown = ops.show_examples(found)
    show_faults(output, found.faults, found.remarks, shown)
    _show_notes(output, found)
    count = counted(len(found.faults), "fault")
    count += f", {counted(len(found.remarks), 'remark')}" * bool(found.remarks)
    word = _verdict(found)
    then = ""
    if found.mendable and not found.incurable:
        asked = [*(["--for", reader] if reader else []), *(["--exact-class"] * exact_class)]
        then = command_line(["weightsmith", "fix-tokenizer", folder, *asked])
    output.result(
        {
            "schema": SCHEMA,
            "folder": str(folder),
            "verdict": word,
            "faults": [fault_document(fault, shown) for fault in found.faults],
            "remarks": [fault_document(fault, shown) for fault in found.remarks],
            "unchecked": list(found.unchecked),
            "notes": list(found.notes),
        },
        human=f"{styled(word, STYLES[word])}  {folder}\n      {count}",
        quiet=str(folder) if found.faults else "",
        then=then,
    )
    return EXIT_FAULTS if found.faults else 0


def _verdict(diagnosis: Diagnosis) -> Verdict:
    """FAIL if there is a fault; else pass, or "not checked" if the tokenizer was not looked at."""
    if diagnosis.faults:
        return "FAIL"
    return "not checked" if diagnosis.unchecked else "pass"


def _show_result(
    output: Output,
    done: ops.TokenizerPlan | ops.TokenizerResult,
    folder: Path,
    *,
    headline: str,
    dry_run: bool = False,
) -> None:
    lines = [headline, *map(_proof_line, done.proofs)]
    if not dry_run:
        lines.insert(0, f"{styled('done', 'green')}  {folder}")
    human = "\n      ".join(lines)
    output.result(
        {
            "schema": SCHEMA,
            "folder": str(folder),
            "faults": [fault_document(fault, {}) for fault in done.faults],
            "changed": [change.file for change in done.changes],
            "proofs": [
                {"reader": p.reader, "probes": p.probes, "departures": list(p.departures)}
                for p in done.proofs
            ],
            "notes": list(done.notes),
        },
        human=human,
        quiet=str(folder),
    )


def _proof_line(proof: Proof) -> str:
    agreed = proof.probes - len(proof.departures)
    line = f"{proof.reader} gives {proof.truth}'s ids for {agreed} of {proof.probes} test texts"
    if proof.before:
        line += f", before for {proof.probes - proof.before}"
    if not proof.departures:
        return line
    if proof.truth != "sentencepiece":
        return f"{line};\n        the others were wrong before the repair, too"
    return (
        f"{line};\n        the others start with a space, which its class treats in its own way:"
        "\n        --exact-class names a class that does not"
    )


def _show_notes(output: Output, found: Diagnosis) -> None:
    for note in found.notes:
        output.plan(f"note: {note}")


def _show_changes(output: Output, plan: ops.TokenizerPlan) -> None:
    for change in plan.changes:
        output.plan()
        for line in _diff(change, plan.diagnosis.before, plan.repair.after):
            style = _COLORS.get(line[:1])
            output.plan(styled(line, style) if style else line)


def _diff(change: ops.Change, old: Folder, new: Folder) -> Iterator[str]:
    """Lines on how a file changes: a diff of its JSON in one layout; the size of a vocabulary."""
    if change.after is None:
        yield f"--- {change.file}  deleted"
        return
    before, after = (_readable(folder, change.file) for folder in (old, new))
    if change.file in {VOCAB, MERGES} or (change.file == TOKENIZER_JSON and before == after):
        size = format_size(len(change.after))
        yield f"+++ {change.file}  {'built' if change.before is None else 'built anew'}, {size}"
        return
    if change.file == TOKENIZER_JSON and change.before is None:
        merges = new.parsed(TOKENIZER_JSON)["model"]["merges"]
        size = f"{format_size(len(change.after))}, {len(merges)} merges"
        yield f"+++ {change.file}  built, {size}"
        return
    yield from difflib.unified_diff(
        before.splitlines(),
        after.splitlines(),
        change.file if change.before is not None else "/dev/null",
        change.file,
        n=1,
        lineterm="",
    )


def _readable(folder: Folder, file: str) -> str:
    """A file's JSON in the layout of the diff; of ``tokenizer.json``, all but the vocabulary."""
    if file not in folder.files or file in {VOCAB, MERGES}:
        return ""
    document = folder.parsed(file)
    model = document.get("model")
    if file == TOKENIZER_JSON and isinstance(model, dict):
        plain = {k: v for k, v in model.items() if k not in {"vocab", "merges"}}
        document = {**document, "model": plain}
    return format_object(document).decode()

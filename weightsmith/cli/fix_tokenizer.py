"""``weightsmith fix-tokenizer``."""

import difflib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click

from weightsmith.catalogue.repairs import load_repairs
from weightsmith.cli.checks_view import STYLES
from weightsmith.cli.layout import heading, styled, table
from weightsmith.cli.options import (
    OUTPUT,
    SAFETY,
    Command,
    FilePath,
    dry_run_option,
    option,
    output_options,
)
from weightsmith.cli.output import Output, command_line
from weightsmith.errors import WeightsmithError
from weightsmith.ops import fix_tokenizer as ops
from weightsmith.ops.verify.report import Verdict
from weightsmith.repair.detect import Diagnosis
from weightsmith.repair.faults import Fault, format_object, parse_object
from weightsmith.repair.folder import TOKENIZER_JSON
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
    docs="docs/repairs.md",
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
    help="Leave DIR as it is; write repaired copies of the files beside its weights here.",
)
@dry_run_option
@output_options
@click.pass_obj
def command(
    output: Output, folder: Path, check: bool, local_copy: Path | None, dry_run: bool
) -> int:
    """Repair tokenizer and config files, and prove the result.

    Looks in DIR (default: here) for the known faults of LLaMA folders. What would be changed is
    shown as a diff, and proved against sentencepiece before a file is touched; of every file that
    changes, the old one is kept as .bak. tokenizer.model is never changed.
    """
    if check:
        output.plan_is_result = True
        return _check(output, folder)
    plan = ops.plan_fix_tokenizer(folder)
    found = plan.diagnosis
    _show_faults(output, [*found.faults, *found.remarks], plan.notes)
    _show_changes(output, plan.changes)
    if dry_run:
        _show_result(output, plan, folder, headline="dry run: nothing was written")
        return 0
    result = ops.carry_out(plan, local_copy=local_copy)
    headline = f"{counted(len(result.faults), 'fault')} repaired in"
    headline += f" {counted(len(result.changes), 'file')}"
    if not result.changes:
        headline = "nothing to repair"
    left = [fault for fault in plan.diagnosis.faults if fault.verdict != "fault"]
    if left:
        headline += f", {counted(len(left), 'fault')} only reported"
    _show_result(output, result, result.folder, headline=headline)
    return 0


def _check(output: Output, folder: Path) -> int:
    diagnosis = ops.check_tokenizer(folder)
    _show_faults(output, [*diagnosis.faults, *diagnosis.remarks], diagnosis.notes)
    count = counted(len(diagnosis.faults), "fault")
    count += f", {counted(len(diagnosis.remarks), 'remark')}" * bool(diagnosis.remarks)
    word = _verdict(diagnosis)
    output.result(
        {
            "schema": SCHEMA,
            "folder": str(folder),
            "verdict": word,
            "faults": [_fault_document(fault) for fault in diagnosis.faults],
            "remarks": [_fault_document(fault) for fault in diagnosis.remarks],
            "unchecked": list(diagnosis.unchecked),
            "notes": list(diagnosis.notes),
        },
        human=f"{styled(word, STYLES[word])}  {folder}\n      {count}",
        quiet=str(folder) if diagnosis.faults else "",
    )
    if diagnosis.mendable and not diagnosis.incurable:
        output.hint(command_line(["weightsmith", "fix-tokenizer", folder]))
    return EXIT_FAULTS if diagnosis.faults else 0


def _verdict(diagnosis: Diagnosis) -> Verdict:
    """Nobody says "pass" of a tokenizer that was not looked at."""
    if diagnosis.faults:
        return "FAIL"
    return "not checked" if diagnosis.unchecked else "pass"


def _show_result(
    output: Output,
    done: ops.TokenizerPlan | ops.TokenizerResult,
    folder: Path,
    *,
    headline: str,
) -> None:
    lines = [headline, *map(_proof_line, done.proofs)]
    human = "\n      ".join([f"{styled('done', 'green')}  {folder}", *lines])
    output.result(
        {
            "schema": SCHEMA,
            "folder": str(folder),
            "faults": [_fault_document(fault) for fault in done.faults],
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
    line = f"{proof.reader} agrees with sentencepiece on {agreed} of {proof.probes} probes"
    if not proof.departures:
        return line
    return (
        f"{line};\n        the others have text that starts with a space, which it cuts otherwise"
    )


def _show_faults(output: Output, faults: Sequence[Fault], notes: Iterable[str]) -> None:
    """Each fault under its file, with what is wrong there."""
    known = {repair.id: repair for repair in load_repairs()}
    for file in dict.fromkeys(fault.file for fault in faults):
        output.plan(heading(file))
        rows = [(each.id, _told(each)) for each in faults if each.file == file]
        output.plan(table(rows, width=output.width, styles=("yellow",)))
    for fault_id in dict.fromkeys(fault.id for fault in faults):
        repair = known[fault_id]
        output.detail(f"{fault_id}: {repair.symptom} ({', '.join(repair.references)})")
    for note in notes:
        output.plan(f"note: {note}")


def _told(fault: Fault) -> str:
    return fault.evidence if fault.verdict == "fault" else f"{fault.verdict}: {fault.evidence}"


def _show_changes(output: Output, changes: Iterable[ops.Change]) -> None:
    for change in changes:
        output.plan()
        for line in _diff(change):
            style = _COLORS.get(line[:1])
            output.plan(styled(line, style) if style else line)


def _diff(change: ops.Change) -> Iterator[str]:
    """A unified diff of what the file says, however it was laid out; of a vocabulary, its size."""
    if change.after is None:
        yield f"--- {change.file}  deleted"
        return
    if change.file == TOKENIZER_JSON:
        model = json.loads(change.after)["model"]
        size = f"{format_size(len(change.after))}, {len(model['merges'])} merges"
        yield f"+++ {change.file}  {'built' if change.before is None else 'built anew'}, {size}"
        return
    before = change.before
    if before is not None:
        before = format_object(parse_object(before, change.file))
    yield from difflib.unified_diff(
        (before or b"").decode().splitlines(),
        change.after.decode().splitlines(),
        change.file if before is not None else "/dev/null",
        change.file,
        n=1,
        lineterm="",
    )


def _fault_document(fault: Fault) -> dict[str, Any]:
    repair = next(each for each in load_repairs() if each.id == fault.id)
    error: WeightsmithError | None = fault.error
    return {
        "id": fault.id,
        "file": fault.file,
        "evidence": fault.evidence,
        "symptom": repair.symptom,
        "repair": repair.change,
        "references": list(repair.references),
        "verdict": fault.verdict,
        "curable": fault.verdict == "fault" and error is None,
    }

"""``weightsmith verify``."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

import click

from weightsmith.cli.checks_view import (
    checks_page,
    hints_of,
    run_smoke,
    show_hints,
    summary,
)
from weightsmith.cli.fixes_view import run_fix, tell_fixes
from weightsmith.cli.layout import heading
from weightsmith.cli.options import (
    INPUTS,
    REPAIR,
    SAFETY,
    SMOKE,
    SOURCE,
    SPEED,
    Command,
    dry_run_option,
    offline_option,
    option,
    output_options,
)
from weightsmith.cli.output import Output
from weightsmith.cli.run_options import WORKERS
from weightsmith.cli.sources import located
from weightsmith.engine.options import Options
from weightsmith.ops.fix.report import FixReport
from weightsmith.ops.verify import smoke as smokes
from weightsmith.ops.verify.cache import Subset, verify_cache
from weightsmith.ops.verify.report import Report
from weightsmith.ops.verify.verify import verify


class Share(click.ParamType[Subset]):
    """``N/M``: the N-th of M shares of the cache, to be checked in turn."""

    name = "share"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Subset:
        """``"1/30"`` -> the first of thirty."""
        if isinstance(value, Subset):
            return value
        number, _, of = value.partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            self.fail(f"{value!r} is no share; write it as 1/30", param, ctx)
        return Subset(int(number), int(of))


@click.command(
    "verify",
    cls=Command,
    examples=[
        "weightsmith verify ./vicuna-7b-v1.1",
        "weightsmith verify ./vicuna-7b-v1.1 --smoke",
        "weightsmith verify ./vicuna-7b-delta-v1.1 --base ./llama-7b",
        "weightsmith verify ./vicuna-7b-v1.1 --fix --from ./llama-7b+./vicuna-7b-delta-v1.1",
        "weightsmith verify --cache --subset 1/30",
    ],
    docs="how-to/verify",
)
@click.argument("source", type=SOURCE, required=False)
@option(
    "--against", group=INPUTS, type=SOURCE, help="Another model that should have equal tensors."
)
@option(
    "--base",
    group=INPUTS,
    type=SOURCE,
    help="For a delta: apply it to this, in memory; --fix makes a damaged delta again from it."
    " For a model: the yardstick of --smoke.",
)
@option(
    "--cache",
    group=INPUTS,
    is_flag=True,
    help="Instead of a SOURCE: hash all files in the hub's cache again, without network.",
)
@option(
    "--subset",
    group=INPUTS,
    type=Share(),
    metavar="N/M",
    help="With --cache: only share N of M.",
)
@option("--smoke", group=SMOKE, is_flag=True, help="Load it with transformers and have it write.")
@option(
    "--device",
    group=SMOKE,
    type=click.Choice(get_args(smokes.Device)),
    default="auto",
    help="Where to run the model; auto (default): on cuda if there is a device.",
)
@option(
    "--prompt",
    group=SMOKE,
    metavar="TEXT",
    default=smokes.QUESTION,
    show_default=True,
    help="The text that it continues.",
)
@option(
    "--max-new-tokens",
    group=SMOKE,
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Most tokens that it writes.",
)
@option(
    "--max-perplexity",
    group=SMOKE,
    type=click.FloatRange(min=1),
    metavar="X",
    help="Fail above this; default: square root of the vocabulary size, or less by --base.",
)
@option(
    "--low-cpu-mem",
    group=SPEED,
    is_flag=True,
    help="Smoke test with one tensor in memory at a time, read again whenever needed.",
)
@option(
    "--fix",
    group=REPAIR,
    is_flag=True,
    help="First rebuild or fetch damaged files, if digests can prove the new ones right.",
)
@option(
    "--from",
    "truth",
    group=REPAIR,
    type=SOURCE,
    help="Where --fix gets them: a copy, or what it was made from (BASE+DELTA; for a delta its"
    " target).",
)
@dry_run_option
@option("--strict", group=SAFETY, is_flag=True, help="Fail if a check could not be made.")
@WORKERS
@offline_option
@output_options
@click.pass_obj
def command(
    output: Output,
    source: str | None,
    against: str | None,
    base: str | None,
    cache: bool,
    subset: Subset | None,
    smoke: bool,
    device: smokes.Device,
    prompt: str,
    max_new_tokens: int,
    max_perplexity: float | None,
    low_cpu_mem: bool,
    fix: bool,
    truth: str | None,
    dry_run: bool,
    strict: bool,
    workers: int,
    offline: bool,
) -> int:
    """Check that a model is right: files, tokenizer, every byte.

    Exit code 0 if all checks pass, 1 if one fails. With --fix, files that differ from the folder's
    manifest are first rebuilt or fetched, and no other file is touched; the exit code is 1 if one
    of them could not be.
    """
    if (truth or dry_run) and not fix:
        raise click.UsageError("--from and --dry-run are for --fix")
    if fix and (cache or against):
        raise click.UsageError("--fix takes a directory, and neither --cache nor --against")
    if cache == bool(source) or (cache and (against or base or smoke)) or (subset and not cache):
        raise click.UsageError("give a SOURCE, or --cache and perhaps --subset")
    if source is None:
        with output.progress() as progress:
            report = verify_cache(
                subset=subset, options=Options(workers=workers), progress=progress
            )
        return _tell(output, report, {}, strict=strict)
    document: dict[str, Any] = {}
    fixes = None
    if fix:
        fixes = run_fix(
            output, source, truth, base, dry_run=dry_run, offline=offline, workers=workers
        )
        if dry_run:
            return tell_fixes(output, fixes)
        document["fixes"] = fixes.to_document()["files"]
    if smoke and device == "cuda":
        smokes.choose_device(device)  # rather now than after reading all of the model
    here = located(output, source, offline=offline)
    ground = located(output, base, offline=offline) if base else None
    other = located(output, against, offline=offline) if against else None
    with output.progress() as progress:
        report = verify(
            here, base=ground, against=other, options=Options(workers=workers), progress=progress
        )
    if smoke and report.checks[0].verdict == "pass":
        settings = smokes.Settings(
            device=device,
            prompt=prompt,
            max_new_tokens=max_new_tokens,
            max_perplexity=max_perplexity,
            low_cpu_mem=low_cpu_mem,
        )
        smoked = run_smoke(output, here, settings, base=ground)
        document |= smoked.to_document()
        report = replace(report, checks=(*report.checks, *smoked.checks))
        output.line()
    return _tell(output, report, document, strict=strict, fixes=fixes)


def _tell(
    output: Output,
    report: Report,
    document: Mapping[str, Any],
    *,
    strict: bool,
    fixes: FixReport | None = None,
) -> int:
    """Print the checks and what to do about those that failed; return the exit code."""
    passed = report.passed(strict=strict)
    page = [heading(report.source), checks_page(report.checks, output, report.fingerprint)]
    output.result(
        {"schema": "weightsmith.verify/1", **document, **report.to_document(), "passed": passed},
        human="\n".join([*page, "", summary(report.checks, passed=passed)]),
        quiet="pass" if passed else "FAIL",
    )
    hints = hints_of(report.checks)
    if fixes is not None:  # it was fixed as far as can be: to fix it is no advice any more
        hints = [*fixes.hints, *(hint for hint in hints if "--fix" not in hint)]
    show_hints(output, hints)
    return 0 if passed and (fixes is None or fixes.complete) else 1

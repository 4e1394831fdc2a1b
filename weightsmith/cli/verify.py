"""``weightsmith verify``."""

from typing import Final

import click

from weightsmith.cli.layout import heading, styled, table
from weightsmith.cli.options import INPUTS, SAFETY, SOURCE, SPEED, Command, option, output_options
from weightsmith.cli.output import Output
from weightsmith.engine.bindings import Options, default_workers
from weightsmith.errors import shown
from weightsmith.ops.verify import Report, verify

STYLES: Final = {"pass": "green", "FAIL": "red", "not checked": "yellow"}


@click.command(
    "verify",
    cls=Command,
    examples=[
        "weightsmith verify ./vicuna-7b-v1.1",
        "weightsmith verify ./vicuna-7b-v1.1 --against ./another-copy --strict",
    ],
    docs="docs/verify.md",
)
@click.argument("source", type=SOURCE)
@option(
    "--against", group=INPUTS, type=SOURCE, help="Another model whose tensors should be the same."
)
@option("--strict", group=SAFETY, is_flag=True, help="A check that could not be made fails too.")
@option(
    "--workers",
    group=SPEED,
    type=click.IntRange(min=1),
    default=default_workers,
    help="Threads; default: one a core, four at most.",
)
@output_options
@click.pass_obj
def command(output: Output, source: str, against: str | None, strict: bool, workers: int) -> int:
    """Check that a model is right: its structure, its tokenizer, every byte.

    Exit code 0 when all checks pass, 1 when one fails.
    """
    with output.progress() as progress:
        report = verify(
            source, against=against, options=Options(workers=workers), progress=progress
        )
    passed = report.passed(strict=strict)
    output.result(
        {"schema": "weightsmith.verify/1", **report.to_json(), "passed": passed},
        human=_page(report, output),
        quiet="pass" if passed else "FAIL",
    )
    return 0 if passed else 1


def _page(report: Report, output: Output) -> str:
    width = max(len(check.name) for check in report.checks)
    verdicts = max(len(check.verdict) for check in report.checks)
    lines = [heading(report.source)]
    for check in report.checks:
        verdict = styled(check.verdict, STYLES[check.verdict]) + " " * (
            verdicts - len(check.verdict)
        )
        rows = [(detail,) for detail in shown(check.details, everything=output.verbose > 0)]
        room = output.width - width - verdicts - 6
        first, *rest = table(rows, width=room, styles=(), indent=0).splitlines()
        lines.append(f"  {check.name:<{width}}  {verdict}  {first}")
        lines += [" " * (width + verdicts + 6) + line for line in rest]
    return "\n".join(lines)

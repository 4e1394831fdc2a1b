"""``weightsmith verify``."""

from dataclasses import asdict, replace
from typing import Any, Final, get_args

import click

from weightsmith.cli.layout import heading, styled, table
from weightsmith.cli.options import (
    INPUTS,
    SAFETY,
    SMOKE,
    SOURCE,
    SPEED,
    Command,
    option,
    output_options,
)
from weightsmith.cli.output import Output
from weightsmith.engine.bindings import Options, default_workers
from weightsmith.errors import shown
from weightsmith.ops import verify as ops
from weightsmith.ops.verify import Device, Report
from weightsmith.units import format_duration, format_memory

STYLES: Final = {"pass": "green", "FAIL": "red", "not checked": "yellow"}


@click.command(
    "verify",
    cls=Command,
    examples=[
        "weightsmith verify ./vicuna-7b-v1.1",
        "weightsmith verify ./vicuna-7b-v1.1 --smoke",
        "weightsmith verify ./vicuna-7b-v1.1 --against ./another-copy --strict",
    ],
    docs="docs/verify.md",
)
@click.argument("source", type=SOURCE)
@option(
    "--against", group=INPUTS, type=SOURCE, help="Another model whose tensors should be the same."
)
@option("--base", group=INPUTS, type=SOURCE, help="Its base, whose perplexity is the yardstick.")
@option("--smoke", group=SMOKE, is_flag=True, help="Load it with transformers and let it write.")
@option(
    "--device",
    group=SMOKE,
    type=click.Choice(get_args(Device)),
    default="auto",
    help="Where to run; auto (default): cuda if there is any.",
)
@option("--prompt", group=SMOKE, metavar="TEXT", help="What to ask it.")
@option(
    "--max-new-tokens",
    group=SMOKE,
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="How much it may write.",
)
@option(
    "--max-perplexity",
    group=SMOKE,
    type=click.FloatRange(min=1),
    help="Fail above this; default: its vocabulary size, or three times the base's.",
)
@option(
    "--low-cpu-mem",
    group=SPEED,
    is_flag=True,
    help="Smoke test with about one layer in memory, the rest read from disk as needed.",
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
def command(
    output: Output,
    source: str,
    against: str | None,
    base: str | None,
    smoke: bool,
    device: Device,
    prompt: str | None,
    max_new_tokens: int,
    max_perplexity: float | None,
    low_cpu_mem: bool,
    strict: bool,
    workers: int,
) -> int:
    """Check that a model is right: structure, tokenizer, every byte.

    Exit code 0 when all checks pass, 1 when one fails.
    """
    with output.progress() as progress:
        report = ops.verify(
            source, against=against, options=Options(workers=workers), progress=progress
        )
    document: dict[str, Any] = {"schema": "weightsmith.verify/1"}
    if smoke and report.checks[0].verdict == "pass":
        output.line(f"loading {report.source}")
        did, judged = ops.smoke(
            source,
            base=base,
            prompt=prompt,
            device=device,
            max_new_tokens=max_new_tokens,
            max_perplexity=max_perplexity,
            low_cpu_mem=low_cpu_mem,
            on_text=output.stream,
        )
        report = replace(report, checks=(*report.checks, *judged))
        document["smoke"] = asdict(did)
        output.line(
            f"\n{did.device}: loaded in {format_duration(did.load_s)},"
            f" {did.tokens_per_s:.3g} tokens/s, peak memory {format_memory(did.peak_memory_nbytes)}"
        )
    passed = report.passed(strict=strict)
    output.result(
        {**document, **report.to_json(), "passed": passed},
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

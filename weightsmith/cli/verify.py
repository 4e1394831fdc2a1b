"""``weightsmith verify``."""

from dataclasses import replace
from typing import Any, get_args

import click

from weightsmith.cli.checks_view import checks_page, run_smoke, show_hints
from weightsmith.cli.layout import heading
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
from weightsmith.ops import smoke as smokes
from weightsmith.ops import verify as ops


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
@option(
    "--base",
    group=INPUTS,
    type=SOURCE,
    help="Of a delta: what to apply it to, writing nothing. Of a model: a yardstick for --smoke.",
)
@option("--smoke", group=SMOKE, is_flag=True, help="Load it with transformers and let it write.")
@option(
    "--device",
    group=SMOKE,
    type=click.Choice(get_args(smokes.Device)),
    default="auto",
    help="Where to run; auto (default): cuda if there is any.",
)
@option(
    "--prompt",
    group=SMOKE,
    metavar="TEXT",
    default=smokes.QUESTION,
    show_default=True,
    help="What to ask it.",
)
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
    help="Fail above this; default: the root of its vocabulary size, or less by its base.",
)
@option(
    "--low-cpu-mem",
    group=SPEED,
    is_flag=True,
    help="Smoke test with one tensor in memory at a time, read anew whenever it is needed.",
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
    device: smokes.Device,
    prompt: str,
    max_new_tokens: int,
    max_perplexity: float | None,
    low_cpu_mem: bool,
    strict: bool,
    workers: int,
) -> int:
    """Check that a model is right: structure, tokenizer, every byte.

    Exit code 0 when all checks pass, 1 when one fails.
    """
    if smoke and device == "cuda":
        smokes.choose_device(device)  # rather now than after reading all of the model
    with output.progress() as progress:
        report = ops.verify(
            source, base=base, against=against, options=Options(workers=workers), progress=progress
        )
    document: dict[str, Any] = {"schema": "weightsmith.verify/1"}
    if smoke and report.checks[0].verdict == "pass":
        settings = smokes.Settings(
            device=device,
            prompt=prompt,
            max_new_tokens=max_new_tokens,
            max_perplexity=max_perplexity,
            low_cpu_mem=low_cpu_mem,
        )
        document["smoke"], checks = run_smoke(output, source, settings, base=base)
        report = replace(report, checks=(*report.checks, *checks))
        output.line()
    passed = report.passed(strict=strict)
    output.result(
        {**document, **report.to_json(), "passed": passed},
        human=f"{heading(report.source)}\n{checks_page(report.checks, output)}",
        quiet="pass" if passed else "FAIL",
    )
    show_hints(output, report.checks)
    return 0 if passed else 1

"""``weightsmith combine``."""

import re
from typing import get_args

import click

from weightsmith.cli.options import Command, dtype_option, output_option, output_options
from weightsmith.cli.output import Output
from weightsmith.cli.run_options import DTYPE_ALL, Run, run_options
from weightsmith.ops import combine as ops


class _Combine(Command):
    """The command, in which a sum that begins with a minus is not taken for an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put a space before such a sum, which `parse_expression` skips."""
        spaced = [f" {each}" if re.match(r"-\s*[\d.]", each) else each for each in args]
        return super().parse_args(ctx, spaced)


@click.command(
    "combine",
    cls=_Combine,
    examples=[
        'weightsmith combine "0.5*./step-900 + 0.3*./step-800 + 0.2*./step-700" ./average',
        'weightsmith combine "./llama-7b + 0.7*(./math-7b - ./llama-7b)" ./task',
    ],
    positional=("target",),
    docs="how-to/combine",
)
@click.argument("expression")
@output_option("--target", "target")
@dtype_option(
    get_args(ops.CombinedDType),
    default="keep",
    show_default=True,
    help="The dtype that the sums are rounded to; keep: the models' own.",
)
@DTYPE_ALL
@run_options
@output_options
@click.pass_obj
def command(
    output: Output,
    expression: str,
    target: str,
    dtype: ops.CombinedDType,
    dtype_all: bool,
    run: Run,
) -> int:
    """Sum models: averages of checkpoints, task arithmetic.

    EXPRESSION is a sum of SOURCEs, with factors (0.5*A), and with spaces around + and -;
    parentheses are allowed. The models' tensor names, shapes and dtypes must agree. Sums are
    computed in float32 and rounded once; config and tokenizer are the first model's.
    """
    terms = [(factor, run.located(output, source)) for factor, source in ops.read_terms(expression)]
    job = ops.plan_combine(
        terms,
        target,
        dtype=dtype,
        dtype_all=dtype_all,
        max_shard_nbytes=run.max_shard_nbytes,
        repair=run.repair,
        all_sidecars=run.all_sidecars,
        offline=run.offline,
    )
    return run.perform(output, job)

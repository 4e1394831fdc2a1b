"""A command for tests: it says one thing of each kind, and ends as it is told."""

import os
import signal

import click

from weightsmith.cli.layout import heading, styled, table
from weightsmith.cli.options import (
    INPUTS,
    OUTPUT,
    SAFETY,
    SIZE,
    SOURCE,
    SPEED,
    Command,
    dry_run_option,
    option,
    output_options,
    yes_option,
)
from weightsmith.cli.output import Output
from weightsmith.errors import ShardMissing


@click.command(
    "sample",
    cls=Command,
    examples=["weightsmith sample --base ./llama-7b", "weightsmith sample --base ./llama-7b -n"],
    aliases={"path-raw": "base", "low-cpu-memory-conversion": "low-cpu-mem"},
    docs="reference/commands",
)
@option("--base", group=INPUTS, type=SOURCE, required=True, help="The model to start from.")
@option("--max-shard-size", group=OUTPUT, type=SIZE, default="5GB", help="Largest weight file.")
@option("--workers", group=SPEED, type=click.IntRange(1), default=1, help="Threads.")
@option("--low-cpu-mem", group=SPEED, is_flag=True, help="One worker.")
@option("--end", group=SAFETY, default="well", help="How to end.")
@dry_run_option
@yes_option
@output_options
@click.pass_obj
def command(
    output: Output,
    base: str,
    max_shard_size: int,
    workers: int,
    low_cpu_mem: bool,
    end: str,
    dry_run: bool,
    yes: bool,
) -> int | None:
    """Say one thing of each kind."""
    output.line(heading("sample"))
    output.line(table([("base", base), ("shard", str(max_shard_size))], width=output.width))
    output.detail(f"workers: {workers}, low memory: {low_cpu_mem}, dry run: {dry_run}")
    output.warning("the pad token is blank")
    output.kept = lambda: "2 finished shards are kept"
    match end:
        case "error":
            context = [f"shard {i} of 9" for i in range(1, 10)]
            raise ShardMissing(index="x\x1b[2J.json", count=9, context=context)
        case "defect":
            raise KeyError(base)
        case "memory":
            raise MemoryError
        case "interrupt":
            raise KeyboardInterrupt
        case "no":
            return 1
        case "ask":
            return 0 if output.confirm("remove 3 files (1.20 GB)?", yes=yes) else 1
        case "signal":
            os.kill(os.getpid(), signal.SIGTERM)
    with output.progress() as progress:
        progress.begin("writing", 1_500_000_000)
        progress.advance(1_500_000_000)
        progress.note("shard 1 of 1 is done")
    output.result(
        {"schema": "weightsmith.sample/1", "target": "./out"},
        human=f"{styled('done', 'green')}  ./out",
        quiet="./out",
    )
    output.hint("weightsmith inspect ./out")
    return None

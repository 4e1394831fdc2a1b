"""Exact deltas: their size on many cases, then make-delta and apply-delta on a model of 1.3 GB.

The rivals are ``zstd --patch-from``, shard by shard, and zipnn's delta; either is left out where it
is not installed, and said so. The floor is to copy the target, and to sync.
"""

import dataclasses
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.bench import measure, peers
from tests.bench.contest import Contest, clear
from tests.bench.measure import Command
from tests.bench.report import Goal
from tests.bench.section import MIB, Findings, Section, Setup, tell

MAKE_OVER_COPY: Final = 3.0
APPLY_OVER_COPY: Final = 1.3
PEAK_LIMIT_MIB: Final = 320
ZSTD_MAKE: Final = (
    'mkdir "$3"; cd "$2"; for name in *.safetensors; do '
    'zstd -q -3 -T0 --patch-from="$1/$name" "$name" -o "$3/$name" || exit 1; done; sync'
)
ZSTD_APPLY: Final = (
    'mkdir "$3"; cd "$2"; for name in *.safetensors; do '
    'zstd -q -d --long=31 --patch-from="$1/$name" "$name" -o "$3/$name" || exit 1; done; sync'
)


@dataclass(frozen=True, slots=True)
class Tool:
    """One way of storing a model against another."""

    name: str
    make: Command
    apply: Command
    delta: Path
    """What the one makes and the other reads."""


def ours(setup: Setup) -> Tool:
    """weightsmith, with everything that it checks by default."""
    base, target = _inputs(setup)
    delta, made = setup.out / "delta", setup.out / "target"
    arguments = ("--base", base, "--target", target, "--delta", delta)
    return Tool(
        "weightsmith",
        setup.weightsmith("make-delta", *arguments, made="delta"),
        setup.weightsmith("apply-delta", "--base", base, "--delta", delta, "--target", made),
        delta,
    )


def zstd(setup: Setup) -> Tool:
    """The program of that name, with all cores."""
    base, target = _inputs(setup)
    name, delta, made = "zstd --patch-from; sync", setup.out / "zstd-delta", setup.out / "zstd"

    def run(script: str, source: Path, out: Path) -> Command:
        return Command(name, ["sh", "-c", script, "sh", *map(str, (base, source, out))], (out,))

    return Tool(name, run(ZSTD_MAKE, target, delta), run(ZSTD_APPLY, delta, made), delta)


def zipnn(setup: Setup) -> Tool:
    """The package of that name, as it threads by default."""
    base, target = _inputs(setup)
    name, delta, made = "zipnn delta; sync", setup.out / "zipnn-delta", setup.out / "zipnn"

    def run(way: str, source: Path, out: Path) -> Command:
        script = str(peers.RIVALS / "zipnn_delta.py")
        argv = ["python", script, way, *map(str, (base, source, out)), "float16"]
        return peers.command(name, setup.work, "zipnn", argv, out)

    return Tool(name, run("compress", target, delta), run("decompress", delta, made), delta)


def copying(setup: Setup) -> Command:
    """What the disk takes for the target alone."""
    _, target = _inputs(setup)
    copy = setup.out / "copy"
    argv = ["sh", "-c", 'cp -r "$1" "$2"; sync', "sh", str(target), str(copy)]
    return Command("cp -r target; sync", argv, (copy,))


def _inputs(setup: Setup) -> tuple[Path, Path]:
    return setup.input("third", "base-safetensors"), setup.input("third", "target-safetensors")


def rivals(setup: Setup) -> list[Tool]:
    """Those that are there."""
    found = []
    if shutil.which("zstd"):
        found.append(zstd(setup))
    else:
        tell("zstd is not installed: left out")
    if peers.is_installed(setup.work, "zipnn"):
        found.append(zipnn(setup))
    else:
        tell("zipnn is not installed: left out")
    return found


# --- a whole model --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """What one tool took for a model: its delta's share of it, GB of model a second, peaks."""

    tool: str
    size: float
    make_gbs: float
    apply_gbs: float
    make_peak_mib: float
    apply_peak_mib: float

    def __str__(self) -> str:
        speeds = f"{self.make_gbs:10.2f}{self.apply_gbs:10.2f}"
        peaks = f"{self.make_peak_mib:10.0f}{self.apply_peak_mib:10.0f}"
        return f"{self.tool:26}{self.size:8.4f}{speeds}{peaks}"


HEADINGS: Final = " " * 26 + "{:>8}{:>10}{:>10}{:>10}{:>10}".format(
    *("size", "make GB/s", "apply", "make MiB", "apply")
)


def find(setup: Setup) -> Findings:
    """First the sizes of many cases, then a whole model as its files."""
    cases, found = _cases(setup)
    tools = [ours(setup), *rivals(setup)]
    copy = copying(setup)
    makes = in_pairs("make-delta, exact", [*(tool.make for tool in tools), copy], setup)
    for tool in tools:
        measure.run(tool.make, setup.log)
    sizes = [_nbytes(tool.delta) / setup.size("third").nbytes for tool in tools]
    _, target = _inputs(setup)
    check = setup.check_files(target)
    commands = [*(tool.apply for tool in tools), copy]
    applies = in_pairs("apply-delta, exact", commands, setup, check)
    clear([*(tool.make for tool in tools), copy])
    rows = [
        _row(tool.name, size, makes, applies, setup)
        for tool, size in zip(tools, sizes, strict=True)
    ]
    mine = rows[0]
    goals = [
        *(Goal(**goal) for goal in found.pop("goals")),
        Goal(
            "make-delta, exact, checks included: time over copying the target",
            makes[-1].ratio("wall_s").median,
            MAKE_OVER_COPY,
        ),
        Goal(
            "apply-delta, exact, checks included: time over copying the target",
            applies[-1].ratio("wall_s").median,
            APPLY_OVER_COPY,
        ),
        Goal("make-delta, exact: peak memory, MiB", mine.make_peak_mib, PEAK_LIMIT_MIB),
        Goal("apply-delta, exact: peak memory, MiB", mine.apply_peak_mib, PEAK_LIMIT_MIB),
    ]
    model = "\n".join([HEADINGS, *map(str, rows)])
    figures = {"exact": {**found, "model": [dataclasses.asdict(row) for row in rows]}}
    return Findings([*makes, *applies], goals, [cases, model], figures)


def in_pairs(
    title: str, commands: Sequence[Command], setup: Setup, check: Callable[[], None] | None = None
) -> list[Contest]:
    """The first beside each of the others, or by itself where there are none."""
    first, *others = commands
    return [
        setup.hold(f"{title}, {other.name}", [first, other], check=check) for other in others
    ] or [setup.hold(title, [first], check=check)]


def _row(name: str, size: float, makes: list[Contest], applies: list[Contest], setup: Setup) -> Row:
    def median(contests: list[Contest], quantity: str) -> float:
        return statistics.median(
            value
            for held in contests
            for side, contestant in enumerate(held.names)
            if contestant == name
            for value in held.values(side, quantity)
        )

    gigabytes = setup.size("third").nbytes / 1e9
    return Row(
        name,
        size,
        *(gigabytes / median(contests, "wall_s") for contests in (makes, applies)),
        *(median(contests, "peak_bytes") / MIB for contests in (makes, applies)),
    )


def _nbytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _cases(setup: Setup) -> tuple[str, dict[str, Any]]:
    """The table that `exact` prints, and the same as a document; a process of its own."""
    document = setup.out / "exact.json"
    argv = [sys.executable, "-m", "tests.bench.exact", "--json", str(document)]
    argv += ["--quick"] if setup.quick else []
    if peers.is_installed(setup.work, "zipnn"):
        argv += ["--zipnn", peers.python(setup.work, "zipnn")]
    tell("sizes of exact deltas")
    with setup.log.open("ab") as log:
        done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, stderr=log, text=True)
    return done.stdout.rstrip(), json.loads(document.read_text())


SECTIONS: Final = (
    Section(
        "exact",
        "sizes of exact deltas; make-delta and apply-delta beside zstd and zipnn",
        {"third": ("base-safetensors", "target-safetensors")},
        find,
        copies=4,
        environments=("zipnn",),
        is_optional=True,
    ),
)

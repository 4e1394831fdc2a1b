"""Torture every command that writes, and report what was tried and what was lost.

    python -m tests.torture [--seed N] [--long] [--part P] [--command C] [--case PART/COMMAND/NAME]

Exit 1 if anything was lost: each loss is told with the command that shows it again.
"""

import argparse
import queue
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from tests.torture import faults, interleavings, kills, mounts, others, power, shim, system
from tests.torture.bench import Bench
from tests.torture.commands import COMMANDS, Command
from tests.torture.world import World

_PARTS = (kills, faults, power, system, others, interleavings)
PARTS: dict[str, ModuleType] = {part.PART: part for part in _PARTS}
WORKERS = 2
_NEED_SHIM = {faults.PART, power.PART}
_FEW = 4
"""Cases of a slow command in a sample, by part."""
_MEMORY = Path("/dev/shm")  # noqa: S108  (a folder of its own is made there)


@dataclass
class Report:
    """What was tried, and what went wrong."""

    seed: int
    tried: Counter[tuple[str, str]] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    notes: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, part: str, command: str, name: str, wrong: Sequence[str]) -> None:
        """One case."""
        with self.lock:
            self.tried[part, command] += 1
            if wrong:
                again = f"make torture CASE='{part}/{command}/{name}' SEED={self.seed}"
                told = "\n".join(f"    {each}" for each in wrong[:12])
                self.lost.append(f"{part} {command} {name}\n{told}\n    again: {again}")
                print(self.lost[-1], flush=True)

    def table(self) -> str:
        """Counts by command and part."""
        parts = [part for part in PARTS if any(p == part for p, _ in self.tried)]
        commands = [c.name for c in COMMANDS if any(c.name == name for _, name in self.tried)]
        rows = [["", *parts]]
        rows += [[c, *(str(self.tried[p, c] or "") for p in parts)] for c in commands]
        totals = [sum(n for (p, _), n in self.tried.items() if p == part) for part in parts]
        rows.append(["all", *map(str, totals)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )


def torture(
    report: Report,
    *,
    commands: Sequence[Command] = COMMANDS,
    parts: Sequence[str] = tuple(PARTS),
    long: bool = False,
    only: str = "",
    at_most: int = 0,
    workers: int = WORKERS,
    may_mount: bool = False,
) -> None:
    """Try every part on every command; `only` this case, or `at_most` so many of each."""
    home = Path(tempfile.mkdtemp(prefix="weightsmith-torture-", dir=_place()))
    try:
        library = shim.build(home)
        if library is None:
            report.notes.add(f"no faults and no power cuts: {shim.why_not()}")
        waiting: queue.SimpleQueue[Command] = queue.SimpleQueue()
        for command in commands:
            waiting.put(command)

        def work(number: int) -> None:
            bench = Bench(home / str(number), library, mounts=may_mount)
            try:
                while True:
                    try:
                        command = waiting.get_nowait()
                    except queue.Empty:
                        return
                    _one(bench, command, report, parts, long=long, only=only, at_most=at_most)
            except Exception as error:
                report.lost.append(f"the torture itself broke: {error!r}")
                raise
            finally:
                bench.close()

        threads = [threading.Thread(target=work, args=(n,)) for n in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _one(
    bench: Bench,
    command: Command,
    report: Report,
    parts: Sequence[str],
    *,
    long: bool,
    only: str,
    at_most: int,
) -> None:
    """All cases of one command."""
    start = time.monotonic()
    world = World(bench, command)
    for part in parts:
        if bench.library is None and part in _NEED_SHIM:
            continue
        module = PARTS[part]
        rng = random.Random(f"{report.seed}/{part}/{command.name}")
        names = [only] if only else module.names(world, rng, long=long)
        limit = at_most or (len(names) if long or not command.slow else _FEW)
        if len(names) > limit:
            names = rng.sample(names, limit)
        for name in names:
            report.add(part, command.name, name, module.run(world, name))
    print(f"{command.name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def _place() -> Path | None:
    """Memory where there is room: what is tried here needs no disk."""
    roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > 1_000_000_000
    return _MEMORY if roomy else None


def main() -> int:
    """Read the command line, torture, report."""
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--command", choices=[each.name for each in COMMANDS])
    parser.add_argument("--at-most", type=int, default=0, help="cases of each command and part")
    parser.add_argument("--case", default="", help="PART/COMMAND/NAME, as a report tells it")
    args = parser.parse_args()
    part, name, only = args.part, args.command, ""
    if args.case:
        part, name, only = args.case.split("/", 2)
    report = Report(args.seed)
    start = time.monotonic()
    if why_not := mounts.enter():
        report.notes.add(f"no file systems that are full, read-only or elsewhere: {why_not}")
    torture(
        report,
        may_mount=not why_not,
        at_most=args.at_most,
        commands=[each for each in COMMANDS if name in {None, each.name}],
        parts=[part] if part else tuple(PARTS),
        long=args.long,
        only=only,
    )
    print(report.table())
    for note in sorted(report.notes):
        print(note)
    tried = sum(report.tried.values())
    print(
        f"{tried} tried, {len(report.lost)} lost, seed {report.seed}, "
        f"{time.monotonic() - start:.0f} s"
    )
    return 1 if report.lost or not tried else 0


if __name__ == "__main__":
    sys.exit(main())

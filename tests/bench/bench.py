"""Time and memory of weightsmith, beside copying the same files and beside other tools.

    make bench             against ``cp -r base x; cp -r delta y; sync``: ten minutes, 27 GB of disk
    make bench PEERS=1     also against FastChat and mergekit, installed beside the inputs (`peers`)

or, from the repository, ``python -m tests.bench.bench``, whose ``--help`` lists the options.
``--quick`` is a smoke test on 21 MB: seconds, and its figures say nothing but that all of it runs.

Each contest is a round to warm up and then rounds of A B A B; outputs are removed and the disk is
synced before each run, outside the time. Figures are of the whole process, imports and the final
fsync included. The table goes to standard output, the rest to standard error.

Ratios are ours over theirs, round by round. Peak memory is what the kernel counts as resident,
mapped files included. "read" is what read calls asked for, mostly out of the page cache, mapped
files not included.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.bench import models, peers, report
from tests.bench.contest import Contest, hold
from tests.bench.measure import Command, CommandFailed
from tests.bench.report import Goal

MODES: Final = {"default flags": (), "--low-cpu-mem": ("--low-cpu-mem",)}
HELP_LIMIT_S: Final = 0.1
PEAK_LIMIT_MIB: Final = {"default flags": 320, "--low-cpu-mem": 280}
FLAT_LIMIT_MIB: Final = 16
PEER_SPEED_LIMIT: Final = 1 / 8
PEER_MEMORY_LIMIT: Final = 1 / 10
ENVIRONMENT_NBYTES: Final = 2_000_000_000
"""About what one peer's environment takes."""
MIB: Final = 1 << 20
WEIGHTSMITH: Final = (sys.executable, "-m", "weightsmith")


def tell(line: str) -> None:
    """Say something that is not a result."""
    print(line, file=sys.stderr, flush=True)


def ours(work: Path, size: models.Size, file_format: str, flags: tuple[str, ...]) -> Command:
    """weightsmith on these inputs."""
    base, delta = models.inputs(work, size, file_format)
    target = work / "out" / "target"
    paths = ["--base", str(base), "--delta", str(delta), "--target", str(target)]
    return Command(
        name="weightsmith",
        argv=[*WEIGHTSMITH, "apply-delta", *paths, *flags],
        makes=(target, target.with_name(".target.weightsmith-partial")),
    )


def copying(work: Path, size: models.Size, file_format: str) -> Command:
    """Copy the same inputs, and wait for the disk."""
    base, delta = models.inputs(work, size, file_format)
    x, y = work / "out" / "x", work / "out" / "y"
    script = 'cp -r "$1" "$2"; cp -r "$3" "$4"; sync'
    argv = ["sh", "-c", script, "sh", str(base), str(x), str(delta), str(y)]
    return Command(name="cp -r; cp -r; sync", argv=argv, makes=(x, y))


def sum_check(work: Path, size: models.Size) -> Callable[[], None]:
    """Fail the benchmark if our target is not base + delta: a wrong sum has no speed."""
    base, delta = models.inputs(work, size, "safetensors")
    program = [sys.executable, "-m", "tests.bench.models", "check"]
    argv = [*program, str(base), str(delta), str(work / "out" / "target")]

    def check() -> None:
        subprocess.run(argv, check=True)

    return check


def against_copying(work: Path, size: models.Size, rounds: int) -> Iterator[Contest]:
    """Both formats, both modes, each against copying the same files."""
    for file_format in models.FORMATS:
        for mode, flags in MODES.items():
            yield hold(
                f"{file_format}, {mode}",
                [ours(work, size, file_format, flags), copying(work, size, file_format)],
                rounds,
                work / "log.txt",
                tell=tell,
                check=sum_check(work, size),
            )


def on_a_quarter(work: Path, size: models.Size, rounds: int) -> Iterator[Contest]:
    """The same runs of ours on a smaller model, in the same order, for their peak memory."""
    for file_format in models.FORMATS:
        for mode, flags in MODES.items():
            title = f"{file_format}, {mode}, a quarter of the size"
            command = ours(work, size, file_format, flags)
            yield hold(title, [command], rounds, work / "log.txt", tell=tell)


def against_peers(work: Path, size: models.Size, rounds: int) -> Iterator[Contest]:
    """Default flags against each peer, on the format that suits the peer."""
    for peer in peers.PEERS:
        base, delta = models.inputs(work, size, peer.file_format)
        yield hold(
            f"{peer.file_format}, {peer.name}",
            [ours(work, size, peer.file_format, ()), peers.command(peer, work, base, delta)],
            rounds,
            work / "log.txt",
            tell=tell,
        )


def goals(copies: list[Contest], quarters: list[Contest], others: list[Contest]) -> Iterator[Goal]:
    """The bounds that the project has set itself, for full-size contests."""
    modes = [mode for _ in models.FORMATS for mode in MODES]
    for mode, whole, quarter in zip(modes, copies, quarters, strict=True):
        if mode == "default flags":
            yield Goal(f"{whole.title}: time over copying", whole.ratio("wall_s").median, 1.0)
        peak, small = (each.spread(0, "peak_bytes").median / MIB for each in (whole, quarter))
        yield Goal(f"{whole.title}: peak memory, MiB", peak, PEAK_LIMIT_MIB[mode])
        yield Goal(f"{whole.title}: more than on a quarter, MiB", peak - small, FLAT_LIMIT_MIB)
    for contest in others:
        if (
            contest.names[1] != "fschat"
        ):  # its low-memory mode is what people used, and what we must beat
            speed = contest.ratio("wall_s").median
            yield Goal(f"{contest.title}: time over theirs", speed, PEER_SPEED_LIMIT)
        memory = contest.ratio("peak_bytes").median
        yield Goal(f"{contest.title}: peak memory over theirs", memory, PEER_MEMORY_LIMIT)


def prepare(work: Path, sizes: list[models.Size], *, with_peers: bool) -> None:
    """Check the disk, build the inputs that are missing, install the peers that are."""
    work.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(work / "out", ignore_errors=True)
    (work / "out" / "tmp").mkdir(parents=True)
    build = sum(len(models.missing(work, size)) * size.nbytes for size in sizes)
    environments = list(peers.ENVIRONMENTS) if with_peers else []
    new = [name for name in environments if not peers.environment_folder(work, name).exists()]
    outputs = (3 if with_peers else 2) * max(size.nbytes for size in sizes)
    needed, free = build + len(new) * ENVIRONMENT_NBYTES + outputs, shutil.disk_usage(work).free
    tell(
        f"disk: needs {needed / 1e9:.1f} GB more under {work} "
        f"({build / 1e9:.1f} GB of it for inputs, kept for next time); {free / 1e9:.1f} GB free"
    )
    if needed > free:
        sys.exit("not enough disk: choose another directory with --dir")
    for size in sizes:
        if models.missing(work, size):
            tell(f"building the {size.name} inputs")
            program = [sys.executable, "-m", "tests.bench.models", "build"]
            subprocess.run([*program, str(work), size.name], check=True)
    for name in environments:
        tell(f"environment of {name}")
        peers.install(work, name, work / "log.txt")


def options() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--dir", type=Path, default=Path.home() / ".cache" / "weightsmith-bench")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds against copying")
    parser.add_argument(
        "--peer-rounds", type=int, default=3, help="counted rounds against each peer"
    )
    parser.add_argument("--peers", action="store_true", help="also against FastChat and mergekit")
    parser.add_argument("--quick", action="store_true", help="tiny inputs, two rounds, no goals")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="all measurements, as one document"
    )
    return parser.parse_args()


def main() -> None:
    """Build, measure, report."""
    asked = options()
    work = asked.dir.expanduser().absolute()
    full, quarter = models.SIZES["full"], models.SIZES["quarter"]
    if asked.quick:
        full, quarter = (models.SIZES["quick"],) * 2
    rounds, peer_rounds = (2, 1) if asked.quick else (asked.rounds, asked.peer_rounds)
    prepare(work, [full] if asked.quick else [full, quarter], with_peers=asked.peers)
    machine = report.machine(work)
    tell(machine)
    help_command = Command("weightsmith --help", [*WEIGHTSMITH, "--help"])
    try:
        first = hold("start", [help_command], max(rounds, 2), work / "log.txt", tell=tell)
        copies = list(against_copying(work, full, rounds))
        quarters = [] if asked.quick else list(on_a_quarter(work, quarter, 3))
        others = list(against_peers(work, full, peer_rounds)) if asked.peers else []
    except CommandFailed as failure:
        sys.exit(str(failure))
    contests = [first, *copies, *quarters, *others]
    kept: list[Goal] = []
    if not asked.quick:
        kept.append(Goal("weightsmith --help, s", first.spread(0, "wall_s").median, HELP_LIMIT_S))
        kept.extend(goals(copies, quarters, others))
    print(f"\n{machine}\ninputs: base and delta of {full.nbytes / 1e9:.2f} GB each, float16\n")
    print(report.table(contests, kept))
    if asked.json:
        asked.json.write_text(json.dumps(report.document(machine, contests, kept), indent=2) + "\n")


if __name__ == "__main__":
    main()

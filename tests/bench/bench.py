"""Time and memory of weightsmith, beside copying the same files and beside other tools.

    make bench                        what needs nothing installed: a quarter of an hour
    make bench PEERS=1                all of it, peers installed beside the inputs (`peers`)
    make bench ONLY="merge-lora xor"  these sections, with the peers that they need

or, from the repository, ``python -m tests.bench.bench``, whose ``--help`` lists the sections, what
each needs of the disk, and the options. ``--quick`` is a smoke test on 15 MB: seconds, and its
figures say nothing but that all of it runs.

Inputs are built when a section first needs them, and kept. Each contest is a round to warm up and
then rounds of A B A B; outputs are removed and the disk is synced before each run, outside the
time. Figures are of the whole process, imports and the final fsync included; a rival whose name
does not end in "sync" runs as its users run it, and does not wait for the disk. What was found goes
to standard output, the rest to standard error. A section that fails does not stop the others.

Ratios are ours over theirs, round by round. Peak memory is what the kernel counts as resident,
mapped files included. "read" is what read calls asked for, mostly out of the page cache, mapped
files not included.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.bench import build, models, peers, report
from tests.bench.contest import Contest
from tests.bench.measure import CommandFailed
from tests.bench.peers import NotInstalled
from tests.bench.report import Goal
from tests.bench.section import Section, Setup, WrongResult, tell
from tests.bench.sections import additions, deltas, files, merging, scale, steps, training

SECTIONS: Final = {
    section.name: section
    for module in (additions, merging, files, deltas, training, steps, scale)
    for section in module.SECTIONS
}


def select(names: Sequence[str], *, with_peers: bool) -> list[Section]:
    """The sections named; without names, all that can be held with or without peers."""
    if names:
        return [SECTIONS[name] for name in SECTIONS if name in names]
    return [
        section
        for section in SECTIONS.values()
        if with_peers or section.is_optional or not section.environments
    ]


def require_disk(setup: Setup, sections: Sequence[Section]) -> None:
    """Say what all of it takes, and stop where that is not there."""
    absent = {
        (setup.size(name), kind)
        for section in sections
        for name, kinds in section.inputs.items()
        for kind in build.missing(setup.work, setup.size(name), kinds)
    }
    environments = {name for section in sections for name in _environments(setup, section)}
    new = [name for name in environments if not peers.is_installed(setup.work, name)]
    inputs = sum(build.nbytes(size, kind) for size, kind in absent)
    kept = inputs + len(new) * peers.ENVIRONMENT_NBYTES
    needed = kept + max(outputs(setup, section) for section in sections)
    free = shutil.disk_usage(setup.work).free
    tell(
        f"disk: needs {needed / 1e9:.1f} GB more under {setup.work} "
        f"({kept / 1e9:.1f} GB of it kept for next time); {free / 1e9:.1f} GB free"
    )
    if needed > free:
        sys.exit("not enough disk: choose another directory with --dir")


def outputs(setup: Setup, section: Section) -> int:
    """About what a section's commands have on disk at once, in bytes."""
    return section.copies * max(setup.size(name).nbytes for name in section.inputs)


def prepare(setup: Setup, section: Section) -> None:
    """Build the inputs that are missing, install the peers that are.

    Raises: NotInstalled.
    """
    shutil.rmtree(setup.out, ignore_errors=True)
    (setup.out / "tmp").mkdir(parents=True)
    for name, kinds in section.inputs.items():
        size = setup.size(name)
        if absent := build.missing(setup.work, size, kinds):
            tell(f"building {', '.join(absent)} of the {size.name} size")
            program = [sys.executable, "-m", "tests.bench.build", str(setup.work), size.name]
            subprocess.run([*program, *absent], check=True)
    for name in _environments(setup, section):
        tell(f"environment of {name}")
        try:
            peers.install(setup.work, name, setup.log)
        except NotInstalled as failure:
            if not section.is_optional:
                raise
            tell(str(failure))


def _environments(setup: Setup, section: Section) -> Sequence[str]:
    return section.environments if setup.with_peers else ()


def describe() -> str:
    """What ``--help`` says about the sections."""
    lines = ["sections, and GB of disk: inputs that are kept, and what else while it is held"]
    for section in SECTIONS.values():
        sizes = {models.SIZES[name]: kinds for name, kinds in section.inputs.items()}
        kept = sum(build.nbytes(size, kind) for size, kinds in sizes.items() for kind in kinds)
        made = section.copies * max(size.nbytes for size in sizes)
        peer = f" [{section.environments[0]}]" if section.environments else ""
        figures = f"{kept / 1e9:5.1f} +{made / 1e9:5.1f}"
        lines.append(f"  {section.name:11}{figures}  {section.about}{peer}")
    lines.append("Inputs are shared. [peer]: its environment takes 1 to 1.7 GB more, kept too.")
    return "\n".join(lines)


def options() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n", 1)[0],
        epilog=describe(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dir", type=Path, default=Path.home() / ".cache" / "weightsmith-bench")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds against copying")
    parser.add_argument("--peer-rounds", type=int, default=3, help="counted rounds of all else")
    parser.add_argument("--peers", action="store_true", help="all sections, peers installed")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(SECTIONS),
        default=[],
        metavar="SECTION",
        help="these sections, peers installed",
    )
    parser.add_argument(
        "--full", choices=list(models.SIZES), default="full", help="the size of the largest models"
    )
    parser.add_argument("--quick", action="store_true", help="tiny inputs, few rounds, no goals")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="all measurements, as one document"
    )
    return parser.parse_args()


def main() -> None:
    """Build, measure, report."""
    asked = options()
    setup = Setup(
        work=asked.dir.expanduser().absolute(),
        rounds=2 if asked.quick else asked.rounds,
        peer_rounds=1 if asked.quick else asked.peer_rounds,
        with_peers=asked.peers or bool(asked.only),
        quick=asked.quick,
        full=asked.full,
    )
    sections = select(asked.only, with_peers=setup.with_peers)
    setup.work.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(setup.out, ignore_errors=True)
    require_disk(setup, sections)
    machine = report.machine(setup.work)
    tell(machine)
    contests: list[Contest] = []
    goals: list[Goal] = []
    tables: list[str] = []
    figures: dict[str, Any] = {"nbytes": {name: setup.size(name).nbytes for name in models.SIZES}}
    failures: list[str] = []
    for section in sections:
        try:
            prepare(setup, section)
            found = section.find(setup)
        except (CommandFailed, NotInstalled, WrongResult) as failure:
            failures.append(f"{section.name}: {failure}")
            tell(failures[-1])
            continue
        contests += found.contests
        goals += () if setup.quick or setup.full != "full" else found.goals
        tables += found.tables
        figures |= found.figures
    parts = [machine, report.table(contests), *tables]
    parts += [f"goals\n{report.verdicts(goals)}"] if goals else []
    print("\n" + "\n\n".join(parts))
    if asked.json:
        document = report.document(machine, contests, goals, figures)
        asked.json.write_text(json.dumps(document, indent=2) + "\n")
    sys.exit("\n".join(failures) or None)


if __name__ == "__main__":
    main()

"""Deltas as a way of life: chains of sparse steps, tensors read from one, bases ranked, one step
in the layout that RL trainers share.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.bench import measure, peers, steps
from tests.bench.contest import clear
from tests.bench.measure import Command
from tests.bench.report import Goal
from tests.bench.section import Findings, Section, Setup, peak_mib, tell

FOLD_OVER_ONE: Final = 4.0
FOLD_MORE_MIB: Final = 200
"""Two spans of 2 MiB a link and worker, and what Python holds of 19 more records."""
ITERATE_OVER_APPLY: Final = 1 / 0.8
RANK_LIMIT_S: Final = 10.0
RANK_SHARE: Final = 0.01
CANDIDATES: Final = 10
FINE_TUNES: Final = 30


def folding(setup: Setup) -> Findings:
    """20 steps in one pass against one of them."""
    base, deltas = setup.input("third", "base-bf16"), setup.input("third", "steps")
    folders = [deltas / f"{number:02}" for number in range(1, steps.STEPS + 1)]

    def apply(count: int) -> Command:
        given = [part for folder in folders[:count] for part in ("--delta", folder)]
        made = f"target-{count}"
        command = setup.weightsmith(
            "apply-delta", "--base", base, *given, "--target", setup.out / made, made=made
        )
        return Command(f"{count} of them", command.argv, command.makes)

    held = setup.hold("apply-delta, sparse steps", [apply(steps.STEPS), apply(1)])
    more = peak_mib(held) - held.spread(1, "peak_bytes").median / (1 << 20)
    title = f"{steps.STEPS} sparse steps in one pass"
    goals = [
        Goal(f"{title}: time over one", held.ratio("wall_s").median, FOLD_OVER_ONE),
        Goal(f"{title}: more memory than one, MiB", more, FOLD_MORE_MIB),
    ]
    return Findings([held], goals)


def iterating(setup: Setup) -> Findings:
    """Tensors of a chain one at a time, against writing them."""
    base, delta = setup.input("third", "base-bf16"), setup.input("third", "steps") / "01"
    script = str(peers.RIVALS / "iterate.py")
    tensors = Command("iter_tensors", [sys.executable, script, f"{base}+{delta}"])
    write = setup.weightsmith(
        "apply-delta", "--base", base, "--delta", delta, "--target", setup.out / "target"
    )
    held = setup.hold("iter_tensors on A+D1, apply-delta", [tensors, write])
    ratio = held.ratio("wall_s").median
    return Findings([held], [Goal(f"{held.title}: time over", ratio, ITERATE_OVER_APPLY)])


def ranking(setup: Setup) -> Findings:
    """A model against ten candidates, of which nine are not its base; links to two models."""
    folder = setup.out / "candidates"
    candidates = []
    for number in range(CANDIDATES):
        side = "base" if number == CANDIDATES // 2 else "delta"
        source = setup.input("full", f"{side}-safetensors")
        candidates.append(_linked(source, folder / f"{number}-{side}"))
    model = setup.input("full", "target-safetensors")
    ranked = setup.weightsmith("inspect", model, "--bases", *candidates)
    held = setup.hold("inspect --bases, ten candidates", [ranked])
    shutil.rmtree(folder)
    read = held.spread(0, "read_bytes").median / (CANDIDATES * setup.size("full").nbytes)
    goals = [
        Goal(f"{held.title}: seconds", held.spread(0, "wall_s").median, RANK_LIMIT_S),
        Goal(f"{held.title}: share of their bytes that is read", read, RANK_SHARE),
    ]
    return Findings([held], goals)


def fine_tunes(setup: Setup) -> Findings:
    """What models of one base take, whole and as exact deltas; one lies on the disk at a time."""
    base, target, delta = (
        setup.input("small", "base-bf16"),
        setup.out / "tuned",
        setup.out / "delta",
    )
    make = setup.weightsmith(
        "make-delta", "--base", base, "--target", target, "--delta", delta, made="delta"
    )
    sizes: dict[str, list[int]] = {"targets": [], "deltas": []}
    for number in range(1, 3 if setup.quick else FINE_TUNES + 1):
        size = setup.size("small").name
        program = [sys.executable, "-m", "tests.bench.steps", size, str(number), str(target)]
        subprocess.run(program, check=True)
        measure.run(make, setup.log)
        for what, folder in (("targets", target), ("deltas", delta)):
            sizes[what].append(sum(path.stat().st_size for path in folder.iterdir()))
            shutil.rmtree(folder)
        tell(f"fine-tune {number}: {sizes['deltas'][-1] / sizes['targets'][-1]:.3f} of its size")
    whole, small = (sum(each) / 1e9 for each in sizes.values())
    table = f"{len(sizes['targets'])} fine-tunes of one base, GB{whole:19.2f} -> {small:.2f}"
    figures = {"fine_tunes": {"change": steps.FINE_TUNED, **sizes}}
    return Findings(tables=[table], figures=figures)


def _linked(source: Path, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for path in source.iterdir():
        os.link(path, folder / path.name)
    return folder


def one_step(setup: Setup) -> Findings:
    """A step made and applied in the disk-delta layout, against the layout's own loop."""
    base, target = setup.input("third", "base-bf16"), setup.input("third", "next-bf16")
    version = setup.out / "run" / "weight_v000001"
    loop = str(peers.RIVALS / "disk_delta_loop.py")

    def rival(way: str, *folders: Path) -> Command:
        argv = [sys.executable, loop, way, *map(str, folders)]
        return Command(f"the layout's loop, {way}", argv, (folders[-1],))

    version.parent.mkdir()
    make = setup.weightsmith(
        *("make-delta", "--base", base, "--target", target, "--delta", version),
        *("--format", "disk-delta"),
        made=f"run/{version.name}",
    )
    theirs = rival("make", base, target, setup.out / "loop")
    made = setup.hold("make-delta --format disk-delta", [make, theirs])
    measure.run(make, setup.log)
    apply = setup.weightsmith(
        *("apply-delta", "--base", base, "--delta", version.parent),
        *("--target", setup.out / "target"),
    )
    theirs = rival("apply", base, version, setup.out / "loop")
    applied = setup.hold("apply-delta of a version", [apply, theirs])
    clear([make])
    goals = [
        Goal(f"{held.title}: time over the loop's", held.ratio("wall_s").median, 1.0)
        for held in (made, applied)
    ]
    return Findings([made, applied], goals)


SECTIONS: Final = (
    Section(
        "fold",
        "20 sparse steps put onto a model in one pass beside one of them",
        {"third": ("base-bf16", "steps")},
        folding,
        copies=2,
    ),
    Section(
        "thirty",
        "thirty fine-tunes of one base as exact deltas",
        {"small": ("base-bf16",)},
        fine_tunes,
        copies=2,
    ),
    Section(
        "tensors",
        "iter_tensors of a chain beside apply-delta",
        {"third": ("base-bf16", "steps")},
        iterating,
    ),
    Section(
        "bases",
        "inspect --bases with ten candidates",
        {"full": ("base-safetensors", "delta-safetensors", "target-safetensors")},
        ranking,
    ),
    Section(
        "step",
        "a step of training made and applied beside the disk-delta layout's own loop",
        {"third": ("base-bf16", "next-bf16")},
        one_step,
        copies=3,
    ),
)

"""Past one machine: planning of the largest models, on ghosts of them (headers and index, and no
weights), and a run on the nodes of a Ray cluster.
"""

import os
import shutil
import subprocess
import sys
from typing import Final

from tests.bench.contest import clear, spread
from tests.bench.measure import Command
from tests.bench.report import Goal
from tests.bench.section import Findings, Section, Setup, peak_mib, tell

SECONDS: Final = 5.0
PEAK_MIB: Final = 300
RAY_OVER_THREADS: Final = 1.3
SHARDS: Final = 8
PLANS: Final = (
    ("inspect", "671b-fp8"),
    ("convert", "671b-fp8"),
    ("dequantize", "671b-fp8"),
    ("apply-delta", "671b", "671b-delta"),
    ("convert", "405b"),
    ("apply-delta", "405b", "405b-delta"),
)


def planning(setup: Setup) -> Findings:
    """What each plan takes, whole processes."""
    module = (sys.executable, "-m", "tests.bench.ghosts")
    ghosts = setup.out / "ghosts"
    plans = PLANS[-2:] if setup.quick else PLANS
    wanted = {name for _, *names in plans for name in names}
    subprocess.run([*module, "write", str(ghosts), *wanted], check=True)
    contests, goals = [], []
    for verb, *names in plans:
        folders = [str(ghosts / name) for name in names]
        title = f"plan {verb}, {' and '.join(names)}"
        held = setup.hold(title, [Command("weightsmith", [*module, "plan", verb, *folders])])
        contests.append(held)
        goals.append(Goal(f"{title}: s", held.spread(0, "wall_s").median, SECONDS))
        goals.append(Goal(f"{title}: peak memory, MiB", peak_mib(held), PEAK_MIB))
    shutil.rmtree(ghosts)
    return Findings(contests, goals)


def on_nodes(setup: Setup) -> Findings:
    """Two nodes of one CPU against two threads, in turn; a warm round first."""
    size = setup.size("full")
    base, delta = (setup.input("full", f"{side}-safetensors") for side in ("base", "delta"))
    made = setup.weightsmith("apply-delta")  # for what it leaves behind
    took: dict[str, list[float]] = {"threads": [], "ray": []}
    whole: dict[str, list[float]] = {"threads": [], "ray": []}
    for number in range(setup.peer_rounds + 1):
        for way in ("threads", "ray"):
            clear([made])
            os.sync()
            argv = [sys.executable, "-m", "tests.bench.nodes", way, str(base), str(delta)]
            argv += [str(made.makes[0]), str(size.nbytes // SHARDS)]
            # Ray's workers are nice by default, which would count what else runs here.
            environment = {**os.environ, "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
            with setup.log.open("a") as log:
                done = subprocess.run(
                    argv, env=environment, stdout=subprocess.PIPE, stderr=log, text=True, check=True
                )
            from_task, in_all = map(float, done.stdout.split())
            tell(f"apply-delta by {way}: {from_task:.2f} s from the first task, {in_all:.2f} s")
            if number:
                took[way].append(from_task)
                whole[way].append(in_all)
    clear([made])
    ratio = spread(_ratios(took))
    rows = [
        ("threads", spread(took["threads"])),
        ("ray, from the first task", spread(took["ray"])),
        ("ray, asking the nodes too", spread(whole["ray"])),
        ("ratio, from the first task", ratio),
        ("ratio, asking too", spread(_ratios(whole))),
    ]
    lines = [
        f"  {what:27}{each.median:8.2f} ({each.low:.2f}-{each.high:.2f})" for what, each in rows
    ]
    title = f"apply-delta of {size.nbytes / 1e9:.1f} GB, two nodes of Ray and two threads, s"
    goal = Goal("two nodes of Ray: time over two threads", ratio.median, RAY_OVER_THREADS)
    figures = {"nodes": took, "nodes_whole": whole}
    return Findings(goals=[goal], tables=["\n".join([title, *lines])], figures=figures)


def _ratios(took: dict[str, list[float]]) -> list[float]:
    return [ours / theirs for ours, theirs in zip(took["ray"], took["threads"], strict=True)]


SECTIONS: Final = (
    Section(
        "scale",
        "planning of 405B and 671B parameters, by headers alone",
        {"smoke": ()},
        planning,
    ),
    Section(
        "nodes",
        "apply-delta on two nodes of a Ray cluster beside two threads",
        {"full": ("base-safetensors", "delta-safetensors")},
        on_nodes,
    ),
)

"""Planning of the largest models, on ghosts of them: headers and index, and no weights."""

import shutil
import subprocess
import sys
from typing import Final

from tests.bench.measure import Command
from tests.bench.report import Goal
from tests.bench.section import Findings, Section, Setup, peak_mib

SECONDS: Final = 5.0
PEAK_MIB: Final = 300
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


SECTIONS: Final = (
    Section(
        "scale",
        "planning of 405B and 671B parameters, by headers alone",
        {"smoke": ()},
        planning,
    ),
)

"""Killed: at every durable step, before and after any call that touches a file, at any time.

step:17          right after the 17th durable step
before:233       before the 233rd watched call, after:233 likewise (needs the shim)
time:0.35        after so much of the time that the command takes
"""

import random
import signal
import time

from tests.torture.shim import ANY
from tests.torture.world import World

PART = "kill"
_SAMPLE = {"before": 6, "after": 6, "time": 4}
"""Of a command, besides every step; in a sample only some steps."""
_STEPS = 6
_LONG = {"before": 200, "after": 200, "time": 50}


def names(world: World, rng: random.Random, *, long: bool) -> list[str]:
    """What to try."""
    steps = [*range(1, world.counts["steps"] + 1)]
    if not long and len(steps) > _STEPS:
        steps = sorted(rng.sample(steps, _STEPS))
    found = [f"step:{number}" for number in steps]
    for kind, many in (_LONG if long else _SAMPLE).items():
        if kind == "time":
            found += [f"time:{rng.random():.3f}" for _ in range(many)]
        elif calls := world.counts[ANY]:
            chosen = rng.sample(range(1, calls + 1), min(many, calls))
            found += [f"{kind}:{number}" for number in sorted(chosen)]
    return found


def run(world: World, name: str) -> list[str]:
    """Kill the command there; what is wrong then."""
    kind, _, number = name.partition(":")
    if kind == "step":
        return world.disturbed(kill_at_step=int(number))
    if kind == "time":
        world.lay_out()
        start = time.monotonic()
        world.run()
        at = float(number) * (time.monotonic() - start)
        return world.disturbed(signals=[(at, signal.SIGKILL)])
    trouble = {"function": ANY, "kind": f"kill-{kind}", "first": int(number)}
    return world.disturbed(trouble=trouble)

"""The power goes: every state that a medium may then hold, within a sample, is opened.

    57:names       after 57 of the recorded steps: names are there, bytes that nobody synced are not
    57:r3          as a third roll of the dice has it (`medium.CHOICES` has the other words)

Recordings differ where threads do: another one may have another order of steps.
"""

import random
from typing import Any, Final

from tests.torture.bench import empty
from tests.torture.medium import CHOICES, Log, after_cut, read_log, scan, shape, write_out
from tests.torture.world import World

PART: Final = "power"
_SAMPLE: Final = 30
"""Different states of a command."""
_ROLLS, _LONG_ROLLS = 3, 12
_logs: dict[World, Log] = {}


def names(world: World, rng: random.Random, *, long: bool) -> list[str]:
    """States that differ, of all moments or some."""
    log = recorded(world)
    rolls = [f"r{number}" for number in range(_LONG_ROLLS if long else _ROLLS)]
    found = [(moment, how) for moment in range(len(log.steps) + 1) for how in (*CHOICES, *rolls)]
    rng.shuffle(found)
    seen: set[int] = set()
    chosen: list[str] = []
    for moment, how in found:
        if len(chosen) == _SAMPLE and not long:
            break
        state = hash(shape(after_cut(log, moment, how)))
        if state not in seen:
            seen.add(state)
            chosen.append(f"{moment}:{how}")
    return chosen


def run(world: World, name: str) -> list[str]:
    """Make that state, and open it; what is wrong then."""
    moment, _, how = name.partition(":")
    nodes = after_cut(recorded(world), int(moment), how)
    empty(world.bench.area)
    write_out(nodes, world.bench.area)
    return [*world.wrong_now(), *world.finish()]


def recorded(world: World, **request: Any) -> Log:
    """What the medium is told by a run from the start, which is kept."""
    if world not in _logs:
        world.lay_out()
        before = scan(world.bench.area)
        ended = world.run(log=str(world.bench.log), **request)
        if ended.exit:
            raise RuntimeError(ended.said)
        _logs[world] = read_log(world.bench.log, world.bench.area, before)
    return _logs[world]

"""Two runs of a command at once, in an order of durable steps and locks that can be run again.

    7:real          the first run goes on to point 7, then the second one to its end, as far as
                    locks let it
    7,12:none       after point 12 the first one goes on; ``none``: on a file system without locks
    7,12,13:granted and so on; ``granted``: where every lock is given to everybody

Points are counted over both (`turns`).
"""

import random
from typing import Final

from tests.torture.others import judge_two, locks_for
from tests.torture.world import World

PART: Final = "order"
_SAMPLE: Final = 6
_LONG: Final = 400
_SWITCHES: Final = 4


def names(world: World, rng: random.Random, *, long: bool) -> list[str]:
    """In the long run each place of a single switch; random ones of several."""
    points = 2 * world.counts["steps"] + 4
    found = [
        f"{n}:{locks}" for n in range(1, points // 2 + 1) for locks in locks_for(world) if long
    ]
    for _ in range(_LONG if long else _SAMPLE):
        many = min(points, rng.randint(1 if not long else 2, _SWITCHES))
        chosen = sorted(rng.sample(range(1, points + 1), many))
        found.append(f"{','.join(map(str, chosen))}:{rng.choice(locks_for(world))}")
    return [*dict.fromkeys(found)]


def run(world: World, name: str) -> list[str]:
    """Run them in that order; what is wrong then."""
    points, locks = name.split(":")
    schedule = [int(each) for each in points.split(",")]
    return judge_two(world, locks, schedule=schedule)

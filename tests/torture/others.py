"""What others do while a run is at work.

signals:INT@0.4,INT@0.42    Ctrl-C after so much of the time that the command takes, and again
input:17:flip:3             after 17 durable steps the third input gets other bytes (`acts`)
staged:17:flip:2            a file of the unfinished output does, or its directory is a link
left:17:hard                killed there; what it left is then linked to from elsewhere
twin:17:none                there a second run begins and ends, on a file system without locks;
                            ``granted``: with one that gives every lock to everybody
together:real               two runs at once
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tests.torture.acts import HARMS, INPUT_HARMS
from tests.torture.bench import empty
from tests.torture.state import State, state_of
from tests.torture.world import World

PART: Final = "others"
_SIGNALS: Final = ("INT", "TERM", "HUP")
LOCKS: Final = ("real", "none", "granted")
_LEFT: Final = ("hard", "symbolic", "directory", "fifo")
_GAVE_WAY: Final = frozenset({5, 9, 10})
"""Of two runs one may end so: the other is at work, or was, on the same files."""


def names(world: World, rng: random.Random, *, long: bool) -> list[str]:
    """What to try."""
    steps = [*range(1, world.counts["steps"] + 1)]
    files = len(inputs_of(world))

    def some() -> list[int]:
        return steps if long else rng.sample(steps, min(1, len(steps)))

    found = []
    for name in _SIGNALS:
        for _ in range(10 if long else 1):
            first = rng.random()
            second = f",{name}@{first + rng.random() / 5:.3f}"
            found += [f"signals:{name}@{first:.3f}", f"signals:{name}@{first:.3f}{second}"]
    if files:
        for how in INPUT_HARMS:
            found += [f"input:{step}:{how}:{rng.randrange(files)}" for step in some()]
    if world.command.whole and world.command.name != "run-plan":  # shares are made by others
        for how in HARMS:
            found += [f"staged:{step}:{how}:{rng.randrange(6)}" for step in some()]
    if not world.command.for_later:  # else its work is what it makes
        found += [f"left:{step}:{how}" for how in _LEFT for step in some()]
    for locks in locks_for(world):
        found += [f"twin:{step}:{locks}" for step in some()]
        found += [f"together:{locks}"] * (5 if long else 1)
    return found


def locks_for(world: World) -> tuple[str, ...]:
    """Kinds of locks; a download needs those that it is granted to be its own."""
    return LOCKS[:-1] if world.command.line[0] == "download" else LOCKS


def run(world: World, name: str) -> list[str]:
    """Let it happen; what is wrong then."""
    kind, _, value = name.partition(":")
    return _PARTS[kind](world, value)


def inputs_of(world: World) -> list[Path]:
    """The files that the command reads, but for those of a hub; of a saved plan, which knows each
    by its time of change, none.
    """
    if "{in}" not in " ".join(world.command.line):
        return []
    return [
        each for each in sorted(world.inputs.rglob("*")) if each.is_file() and each.stat().st_size
    ]


def _signals(world: World, value: str) -> list[str]:
    world.lay_out()
    start = time.monotonic()
    world.run()
    took = time.monotonic() - start
    sent = [each.split("@") for each in value.split(",")]
    signals = [(float(at) * took, getattr(signal, f"SIG{name}")) for name, at in sent]
    world.lay_out()
    ended = world.run(signals=signals)
    # A second signal ends the tidying up: what it leaves, the next run removes.
    return world.judge(ended, tidy=len(signals) == 1)


def _input(world: World, value: str) -> list[str]:
    """The run may notice, or not: then its result is that of the inputs before or after."""
    step, how, number = value.split(":")
    path = inputs_of(world)[int(number)]
    saved = world.bench.home / "saved"
    empty(saved)
    shutil.copytree(world.inputs, saved, dirs_exist_ok=True)
    try:
        world.lay_out()
        ended = world.run(act=[int(step), "input", str(path), how])
        made, wrong = world.area(), world.wrong_end(ended)
        finished = ended.exit == 0
        if finished and made != world.after:
            wrong += _unless_of_changed_inputs(world, made)
        else:
            wrong += [each for each in world.wrong_now(finished=finished) if "input" not in each]
    finally:
        for each in inputs_of(world):
            each.unlink()
        shutil.copytree(saved, world.inputs, dirs_exist_ok=True)
    if finished and made != world.after:
        return wrong
    ended = world.run()
    if ended.exit and "--restart" in ended.said:  # what was made of other bytes is refused
        return wrong + world.finish(more=("--restart",))
    return wrong + world.judge(ended)


def _unless_of_changed_inputs(world: World, made: State) -> list[str]:
    world.lay_out()
    ended = world.run()
    if ended.exit or world.area() != made:
        return ["it ended well, with what neither the inputs before give nor those after"]
    return []


def _staged(world: World, value: str) -> list[str]:
    step, how, number = value.split(":")
    world.lay_out()
    wrong = world.judge_end(world.run(act=[int(step), "staged", number, how]), tidy=False)
    empty(world.bench.area / "tmp")
    ended = world.run()
    if ended.exit and "--restart" in ended.said:  # what was finished has other bytes now
        return wrong + world.finish(more=("--restart",))
    return wrong + world.judge(ended)


def _left(world: World, value: str) -> list[str]:
    """What lies where work goes on is somebody's now, who must find it unchanged."""
    step, how = value.split(":")
    world.lay_out()
    world.run(kill_at_step=int(step))
    theirs = world.bench.home / "theirs"
    empty(theirs)
    new = [world.bench.area / path for path in world.area().keys() - world.before.keys()]
    new = [path for path in new if path.is_file() and _is_work(path.relative_to(world.bench.area))]
    for number, path in enumerate(sorted(new)):
        other = theirs / str(number)
        if how == "hard":
            os.link(path, other)
            continue
        path.rename(other)
        if how == "symbolic":
            path.symlink_to(other)
        elif how == "directory":
            path.mkdir()
            (path / "inside").write_text("theirs")
        else:
            os.mkfifo(path)
    before = state_of(theirs, times=True)
    wrong = []
    if how in {"directory", "fifo"}:
        wrong = world.judge_end(world.run(), tidy=False)  # it may refuse, but not hang
        for path in new:
            if path.is_dir():
                shutil.rmtree(path)
            elif path.exists() and not path.is_file():
                path.unlink()
    wrong += world.finish()
    if state_of(theirs, times=True) != before:
        wrong.append("what others link to was changed")
    return wrong


def _is_work(path: Path) -> bool:
    """Whether a run keeps its unfinished work there."""
    return path.suffix in {".incomplete", ".tmp"} or any(part[0] == "." for part in path.parts)


def _twin(world: World, value: str) -> list[str]:
    step, locks = value.split(":")
    return judge_two(world, locks, stop_at_step=int(step))


def judge_two(world: World, locks: str, **request: Any) -> list[str]:
    """Two runs of the command at once; what is wrong after them."""
    world.lay_out()
    ended = world.run(twin=locks, **request)
    ends = sorted({ended.exit, ended.twin or 0})
    wrong = world.judge(replace(ended, exit=ends[0]))
    # Without locks each may find the other's traces; a download wants them.
    in_place = not world.command.whole
    may_both = in_place or (locks != "real" and "stop_at_step" not in request)
    gave_way = _GAVE_WAY | {1} if world.command.line[0] == "verify" else _GAVE_WAY  # not sound yet
    if not {*ends} <= {0, *gave_way} or (ends[0] != 0 and not may_both):
        wrong.append(f"two runs ended with {ended.exit} and {ended.twin}: {ended.said[-1200:]}")
    return wrong


_PARTS: Final[dict[str, Callable[[World, str], list[str]]]] = {
    "signals": _signals,
    "input": _input,
    "staged": _staged,
    "left": _left,
    "twin": _twin,
    "together": judge_two,
}

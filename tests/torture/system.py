"""Where a run finds itself: limits, full and read-only file systems, odd environments.

It gets over some of it, with the same bytes and modes as ever:

    no-home no-tmpdir umask:077 closed:012 clock:2096 devices read-only-inputs c-locale
    workers:4 zone:Asia/Kathmandu kernel:avx2 disk

Of the rest it may say that it cannot; then the same command finishes once all is well again:

    file-size:20000 open-files:9        limits of the process
    room:0.7 entries:0.5                the file system has room for so much of what is made
    filled:17                           after so many durable steps others have taken the rest
    no-temporary-room read-only         there is none for temporary files, or anywhere
    volume                              another file system is mounted where the target is to be
"""

import calendar
import contextlib
import mmap
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tests.support.paths import ROOT
from tests.torture import mounts
from tests.torture.bench import empty
from tests.torture.state import Entry, State
from tests.torture.world import World

PART: Final = "system"
_WITH_WORKERS: Final = frozenset(
    ("apply-delta", "make-delta", "merge-lora", "convert", "combine", "extract-lora")
)
_ZONES: Final = ("Asia/Kathmandu", "America/St_Johns", "Pacific/Kiritimati")
_KERNELS: Final = ("plain", "avx2", "avx512", "none")
"""Of our own compiled part and, but for the fastest, of NumKong; ``none``: without ours."""
_DISK: Final = Path("/var/tmp")  # noqa: S108  (a folder of our own is made there)
_MOUNTS: Final = ("disk", "devices", "read-only-inputs", "no-temporary-room", "read-only")
_SYSTEM_TMP: Final = Path("/tmp")  # noqa: S108  (hidden for once by a folder of our own)
_FRESH_IN_SAMPLE: Final = 0.25
"""Of the commands that a sample starts in a new process, which takes seconds."""
_MANY: Final = {True: 12, False: 1}
"""Limits of each kind, in the long run and in a sample."""
_SPARE_NBYTES: Final = 8_000_000
"""So much that no plan finds it too little."""
_PAGES: Final = 4
"""More than a file system of memory takes for itself."""


def names(world: World, rng: random.Random, *, long: bool) -> list[str]:
    """What to try."""
    found = ["no-home"]
    if not world.command.name.startswith("run-"):  # much of it was made before, under another one
        found += ["umask:077", "umask:027"]
    found += [f"closed:{each}" for each in ("0", "1", "2", "012")]
    largest = max(each.nbytes for each in world.after.values())
    found += [f"zone:{each}" for each in (_ZONES if long else [rng.choice(_ZONES)])]
    if world.command.line[0] in _WITH_WORKERS:
        found += [f"workers:{each}" for each in ((1, 2, 3, 8) if long else [rng.choice((1, 3, 8))])]
    kernels = [each for each in _KERNELS if each != "none" or not _codes(world)]
    found += [f"kernel:{each}" for each in (kernels if long else [rng.choice(kernels)])]
    fewest = 16 if world.command.name in {"merge", "extract"} else 3  # torch's processor table
    for _ in range(_MANY[long]):
        found.append(f"file-size:{rng.randint(1, largest)}")
        found.append(f"open-files:{rng.randint(fewest, 24)}")
    if world.bench.library is not None and world.command.name != "clean-cache":  # goes by it
        found += ["clock:1971", "clock:2096"]
    if world.bench.mounts:
        found += _MOUNTS
        if _SYSTEM_TMP not in {*ROOT.parents, *world.bench.home.parents}:
            found.append("no-tmpdir")
        steps = [*range(1, world.counts["steps"] + 1)]
        found += [f"filled:{each}" for each in (steps if long else steps and [rng.choice(steps)])]
        for _ in range(_MANY[long]):
            found += [f"room:{rng.random():.3f}", f"entries:{rng.random():.3f}"]
        if world.command.whole:
            found.append("volume")
    # A saved plan tells paths as text, which Python cannot turn into names there.
    if not world.command.name.startswith("run-") and (long or rng.random() < _FRESH_IN_SAMPLE):
        found.append("c-locale")
    return found


def run(world: World, name: str) -> list[str]:
    """Run the command there; what is wrong then."""
    kind, _, value = name.partition(":")
    if kind in _MUST:
        return _must(world, kind, value)
    return _MAY[kind](world, value)


# --- what a run gets over -------------------------------------------------------------------------


def _must(world: World, kind: str, value: str) -> list[str]:
    world.lay_out()
    with contextlib.ExitStack() as held:
        ended = world.run(**_MUST[kind](world, value, held))
        if ended.exit:
            return [f"exit {ended.exit}, though nothing is amiss: {ended.said[-800:]}"]
        wanted = _with_umask(world, int(value, 8)) if kind == "umask" else world.after
        return world.judge(ended, after=wanted)


def _with_umask(world: World, umask: int) -> State:
    """What a run leaves whose files get fewer permissions; a repaired file keeps those it had."""

    def is_made(path: str, entry: Entry) -> bool:
        if world.command.whole and f"{path}/".startswith(f"{world.command.whole}/"):
            return True
        return entry.kind in "-d" and path.removesuffix(".bak") not in world.before

    return {
        path: replace(each, mode=each.mode & ~umask) if is_made(path, each) else each
        for path, each in world.after.items()
    }


def _no_tmpdir(world: World, _: str, __: contextlib.ExitStack) -> dict[str, Any]:
    """Then it is the system's, which for this process is the one that is looked at."""
    return {"unset": ["TMPDIR"], "binds": [[str(world.bench.area / "tmp"), str(_SYSTEM_TMP)]]}


def _codes(world: World) -> bool:
    """Whether what it makes has another form where there is no compiled part."""
    return world.command.name in {"make", "push"}


def _disk(world: World, _: str, held: contextlib.ExitStack) -> dict[str, Any]:
    """Not in memory, where the other worlds are."""
    area = world.bench.area
    empty(area)
    place = held.enter_context(tempfile.TemporaryDirectory(dir=_DISK))
    held.enter_context(mounts.elsewhere(area, Path(place)))
    world.fill()
    return {}


def _clock(_: World, year: str, __: contextlib.ExitStack) -> dict[str, Any]:
    return {"clock": calendar.timegm((int(year), 1, 1, 0, 0, 0)) - int(time.time())}


def _devices(world: World, _: str, held: contextlib.ExitStack) -> dict[str, Any]:
    """Inputs, working directory, temporary files and caches: a device each."""
    area = world.bench.area
    empty(area)
    held.enter_context(mounts.memory(area))
    for name in ("tmp", "cache", "home"):
        (area / name).mkdir()
        held.enter_context(mounts.memory(area / name))
    world.fill()
    return {}


def _read_only_inputs(world: World, _: str, held: contextlib.ExitStack) -> dict[str, Any]:
    held.enter_context(mounts.read_only(world.inputs))
    return {}


_MUST: Final[dict[str, Callable[[World, str, contextlib.ExitStack], dict[str, Any]]]] = {
    "no-home": lambda *_: {"unset": ["HOME"]},
    "no-tmpdir": _no_tmpdir,
    "umask": lambda _, value, __: {"umask": int(value, 8)},
    "closed": lambda _, value, __: {"closed": [int(each) for each in value]},
    "clock": _clock,
    "zone": lambda _, value, __: {"env": {"TZ": value}},
    "workers": lambda _, value, __: {"more": ("--workers", value)},
    "kernel": lambda _, value, __: {"kernel": value},
    "disk": _disk,
    "devices": _devices,
    "read-only-inputs": _read_only_inputs,
    "c-locale": lambda *_: {
        "afresh": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    },
}


# --- what may stop it -----------------------------------------------------------------------------


def _limited(limit: str) -> Callable[[World, str], list[str]]:
    return lambda world, value: world.disturbed(limits={limit: int(value)})


def _little_room(world: World, *, nbytes: int = 0, entries: int = 0) -> list[str]:
    area = world.bench.area
    empty(area)
    with mounts.memory(area, nbytes=nbytes, entries=entries):
        world.fill()
        wrong = world.judge_end(world.run())
        mounts.make_room(area)
        return wrong + world.finish()


def _room(world: World, share: str) -> list[str]:
    before, after = _nbytes(world.before), _nbytes(world.after)
    more = int(float(share) * max(after - before, after))
    return _little_room(world, nbytes=before + more + _PAGES * mmap.PAGESIZE)


def _entries(world: World, share: str) -> list[str]:
    made = len(world.after.keys() - world.before.keys()) + 3
    before = sum(1 for _ in world.pristine.rglob("*"))  # the hub library's own files among them
    entries = before + 4 + int(float(share) * made)  # with the root and its folders
    return _little_room(world, entries=entries)


def _filled(world: World, step: str) -> list[str]:
    area = world.bench.area
    empty(area)
    with mounts.memory(
        area, nbytes=_nbytes(world.before) + 2 * _nbytes(world.after) + _SPARE_NBYTES
    ):
        world.fill()
        filler = area / "theirs"
        ended = world.run(act=[int(step), "fill", str(filler)])
        filler.unlink(missing_ok=True)
        return world.judge(ended, tidy=False)


def _nbytes(state: State) -> int:
    """What its files take, in whole pages."""
    return sum(-(-each.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE for each in state.values())


def _no_temporary_room(world: World, _: str) -> list[str]:
    world.lay_out()
    place = world.bench.area / "tmp"
    with mounts.memory(place, nbytes=mmap.PAGESIZE, entries=1):
        wrong = world.judge_end(world.run())
    return wrong + world.finish()


def _read_only(world: World, _: str) -> list[str]:
    world.lay_out()
    with mounts.read_only(world.bench.area):
        wrong = world.judge_end(world.run())
        wrong += [] if world.area() == world.before else ["something was written"]
    return wrong + world.finish()


def _volume(world: World, _: str) -> list[str]:
    world.lay_out()
    target = world.target
    target.mkdir(exist_ok=True)
    with mounts.memory(target):
        if (old := world.pristine / target.name).exists():
            shutil.copytree(old, target, dirs_exist_ok=True)
        wrong = world.judge_end(world.run(), before=world.area())
    return wrong + world.finish()


_MAY: Final[dict[str, Callable[[World, str], list[str]]]] = {
    "file-size": _limited("RLIMIT_FSIZE"),
    "open-files": _limited("RLIMIT_NOFILE"),
    "room": _room,
    "entries": _entries,
    "filled": _filled,
    "no-temporary-room": _no_temporary_room,
    "read-only": _read_only,
    "volume": _volume,
}

"""One call under libc goes wrong, or every call from then on.

pwrite:3:ENOSPC      the third call fails so, once
fsync:2+:EIO         from the second call on, all do
pread:4:short        half of what was asked for comes; zero: nothing
fsync:1:lie          it says that it is done, and does nothing
pwrite:2:delayed     it says that it is done; the next sync tells that it was not, and the next
                     one does not any more, as Linux has it
"""

import random
from typing import Final

from tests.torture.shim import FOREVER
from tests.torture.world import World

PART: Final = "fault"
_NAMES: Final = ("ENOSPC", "EIO", "EINTR")
FAULTS: Final = {
    "open": ("EIO", "ENOSPC", "EINTR", "EMFILE"),
    "pread": ("EIO", "EINTR", "short", "zero"),
    "read": ("EIO", "EINTR", "short", "zero"),
    "pwrite": (*_NAMES, "short", "zero", "delayed"),
    "write": (*_NAMES, "short", "zero", "delayed"),
    "fsync": (*_NAMES, "lie"),
    "fdatasync": (*_NAMES, "lie"),
    "ftruncate": _NAMES,
    "fallocate": (*_NAMES, "EOPNOTSUPP"),
    "sync_file_range": _NAMES,
    "rename": ("EIO", "ENOSPC", "EROFS"),
    "renameat2": ("EIO", "ENOSPC", "EINVAL"),
    "mkdir": ("EIO", "ENOSPC", "EROFS"),
    "unlink": ("EIO", "EROFS"),
}
"""What each function may do."""
HARMLESS: Final = frozenset({"EINTR", "short", "lie"})
"""What a run has to get over, once."""
_SAMPLE, _LONG = 1, 12
"""Calls that go wrong, of each function and fault."""


def names(world: World, rng: random.Random, *, long: bool) -> list[str]:
    """Every fault of every function that the command calls, at calls of the seed's choice."""
    found = []
    for function, faults in FAULTS.items():
        calls = world.counts[function]
        for fault in faults:
            if (function, fault, world.command.line[0]) == ("write", "zero", "download"):
                continue  # the hub library's own small files, on which Python would go on for ever
            if world.command.remote and (function, fault) == ("read", "zero"):
                continue  # the hub library sends what it reads, and the hub refuses it, exit 2
            many = min(calls, _LONG if long else _SAMPLE)
            for number in sorted(rng.sample(range(1, calls + 1), many)):
                lasts = fault not in {*HARMLESS, "delayed"} and rng.random() < 0.5
                found.append(f"{function}:{number}{'+' if lasts else ''}:{fault}")
    return found


def run(world: World, name: str) -> list[str]:
    """Let it happen; what is wrong then."""
    function, number, fault = name.split(":")
    trouble = {
        "function": function,
        "kind": fault if fault.islower() else "fail",
        "error": "" if fault.islower() else fault,
        "first": int(number.rstrip("+")),
        "times": FOREVER if number.endswith("+") else 1,
    }
    world.lay_out()
    ended = world.run(trouble=trouble)
    wrong = world.judge(ended, tidy=function != "unlink")
    if ended.exit and fault in HARMLESS:
        wrong.append(f"exit {ended.exit}, though this is nobody's fault: {ended.said[-600:]}")
    return wrong

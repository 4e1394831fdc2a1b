"""What a medium may hold after a power cut: a log of what it was told, and the rules of order.

The rules are those that POSIX leaves and journaling file systems keep:

- What was synced is there: of a file its bytes and length, of a directory its names.
- Bytes and length that were not synced are there, or not, or in part; no order among them.
- Names of one directory change in the order of the calls; different directories do not wait for
  each other, nor names for bytes. A rename is one change, of both directories.

Source: ALICE (Pillai et al., OSDI 2014), "abstract persistence models"; SQLite, atomic commit.
"""

import os
import random
import stat
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

RECORDS: Final = (
    *("create", "write", "truncate", "allocate", "sync", "rename", "exchange", "mkdir"),
    *("unlink", "rmdir", "symlink", "link", "chmod"),
)
_HEAD: Final = struct.Struct("<IIIIqq")
_SECTOR: Final = 512
ROOT: Final = 0


@dataclass(slots=True)
class Node:
    """A file, a directory or a link."""

    kind: str
    mode: int
    data: bytes = b""
    """Of a link, where it leads."""
    entries: dict[str, int] = field(default_factory=dict)
    times_ns: tuple[int, int] | None = None
    """As they were before the run; None of what it made or wrote."""

    def copy(self) -> "Node":
        """One that may be changed."""
        return replace(self, entries=dict(self.entries))


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that the medium was told."""

    what: str
    node: int = -1
    """Whose bytes, mode or names; of a name, what it leads to."""
    places: tuple[tuple[int, str], ...] = ()
    """Directories and the names in them that change."""
    offset: int = 0
    data: bytes = b""
    mode: int = 0

    @property
    def directories(self) -> frozenset[int]:
        """Those whose names change."""
        return frozenset(directory for directory, _ in self.places)


@dataclass(frozen=True, slots=True)
class Log:
    """What a folder was, and all that was done to it."""

    before: dict[int, Node]
    steps: tuple[Step, ...]
    made: dict[int, Node]
    """What was made in between, empty."""


def scan(folder: Path) -> dict[int, Node]:
    """A folder as nodes; the folder itself is `ROOT`."""
    nodes: dict[int, Node] = {}

    def add(path: Path) -> int:
        state, number = path.lstat(), len(nodes)
        kind = stat.filemode(state.st_mode)[0]
        times = (state.st_atime_ns, state.st_mtime_ns)
        node = nodes[number] = Node(kind, stat.S_IMODE(state.st_mode), times_ns=times)
        if kind == "l":
            node.data = os.fsencode(path.readlink())
        elif kind == "-":
            node.data = path.read_bytes()
        else:
            node.entries = {each.name: add(each) for each in sorted(path.iterdir())}
        return number

    add(folder)
    return nodes


def read_log(path: Path, folder: Path, before: dict[int, Node]) -> Log:
    """The log of a run, with paths resolved as they were at each moment."""
    live = {number: node.copy() for number, node in before.items()}
    made: dict[int, Node] = {}
    steps: list[Step] = []

    def find(name: str) -> tuple[int, str] | None:
        relative = os.path.relpath(name, folder)
        if relative.startswith(".."):
            return None
        directory = ROOT
        *parents, last = relative.split("/")
        for each in parents:
            directory = live[directory].entries[each]
        return directory, last

    def add(kind: str, place: tuple[int, str], mode: int, data: bytes = b"") -> int:
        number = len(live)
        made[number] = Node(kind, mode, data)
        live[number] = Node(kind, mode, data)
        live[place[0]].entries[place[1]] = number
        return number

    for what, name, other, mode, offset, data in _records(path):
        if name.endswith(" (deleted)") or (place := find(name)) is None:
            continue
        names = live[place[0]].entries
        match what:
            case "create" | "mkdir" | "symlink":
                kind = {"create": "-", "mkdir": "d", "symlink": "l"}[what]
                node = add(kind, place, mode or 0o777, other.encode() if kind == "l" else b"")
                steps.append(Step("name", node, (place,)))
            case "unlink" | "rmdir":
                steps.append(Step("remove", names.pop(place[1]), (place,)))
            case "rename" | "exchange" | "link":
                new = find(other)
                if new is None:
                    continue
                node, there = names[place[1]], live[new[0]].entries
                if what == "rename":
                    del names[place[1]]
                elif what == "exchange":
                    names[place[1]] = there[new[1]]
                there[new[1]] = node
                places = (new,) if what == "link" else (place, new)
                steps.append(Step("name" if what == "link" else what, node, places))
            case _:
                node = names[place[1]] if place != (ROOT, ".") else ROOT
                steps.append(Step(what, node, offset=offset, data=data, mode=mode))
    return Log(before, tuple(steps), made)


def _records(path: Path) -> Iterator[tuple[str, str, str, int, int, bytes]]:
    raw, at = path.read_bytes(), 0
    while at < len(raw):
        record, name, other, mode, offset, length = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        names = raw[at : at + name + other]
        at += name + other
        what = RECORDS[record]
        data = raw[at : at + length] if what == "write" else b""
        at += len(data)
        place = length if what in {"truncate", "allocate"} else offset
        yield what, os.fsdecode(names[:name]), os.fsdecode(names[name:]), mode, place, data


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the changes that nothing has synced the medium holds."""

    names: float
    """The share of each directory's changes, from the first on."""
    data: float
    """The chance that bytes are there."""
    torn: float = 0.0
    """The chance that of such bytes only a part is."""


CHOICES: Final = {
    "all": Choice(1, 1),
    "none": Choice(0, 0),
    "names": Choice(1, 0),
    "data": Choice(0, 1),
    "torn": Choice(1, 1, 1),
}
"""The corners; ``rN`` are random choices between them."""


def after_cut(log: Log, moment: int, chosen: str) -> dict[int, Node]:
    """What the medium holds when the power goes after so many steps."""
    steps = log.steps[:moment]
    rng = random.Random(f"{moment}:{chosen}")
    choice = CHOICES.get(chosen)
    synced: dict[int, int] = {}
    for number, step in enumerate(steps):
        if step.what == "sync":
            synced[step.node] = number
    held = _names_held(steps, synced, choice, rng)
    nodes = {number: node.copy() for number, node in (log.before | log.made).items()}
    for number, step in enumerate(steps):
        if step.places:
            if number in held:
                _change_names(nodes, step)
        elif step.what != "sync":
            certain = number < synced.get(step.node, -1)
            chance = choice.data if choice else rng.random()
            if certain or rng.random() < chance:
                torn = choice.torn if choice else 0.3
                part = 1.0 if certain or rng.random() >= torn else rng.random()
                _change_bytes(nodes[step.node], step, part)
    return nodes


def _names_held(
    steps: Sequence[Step], synced: dict[int, int], choice: Choice | None, rng: random.Random
) -> set[int]:
    """The numbers of the changes of names that are there."""
    by_directory: dict[int, list[int]] = {}
    for number, step in enumerate(steps):
        for directory in step.directories:
            by_directory.setdefault(directory, []).append(number)
    held: set[int] = set()
    waiting: list[int] = []
    for directory, numbers in by_directory.items():
        certain = [each for each in numbers if each < synced.get(directory, -1)]
        rest = len(numbers) - len(certain)
        share = choice.names if choice else rng.choice((0.0, 1.0, rng.random()))
        if count := len(certain) + round(share * rest):
            waiting.append(numbers[count - 1])
    while waiting:  # what is there has all before it in its directories
        last = waiting.pop()
        for directory in steps[last].directories:
            for number in by_directory[directory]:
                if number <= last and number not in held:
                    held.add(number)
                    waiting.append(number)
    return held


def _change_names(nodes: dict[int, Node], step: Step) -> None:
    (directory, name), *more = step.places
    names = nodes[directory].entries
    match step.what:
        case "name":
            names[name] = step.node
        case "remove":
            names.pop(name, None)
        case "rename":
            names.pop(name, None)
            nodes[more[0][0]].entries[more[0][1]] = step.node
        case "exchange":
            theirs = nodes[more[0][0]].entries
            names[name] = theirs[more[0][1]]
            theirs[more[0][1]] = step.node


def _change_bytes(node: Node, step: Step, part: float) -> None:
    node.times_ns = None
    match step.what:
        case "chmod":
            node.mode = step.mode
        case "truncate":
            node.data = node.data[: step.offset].ljust(step.offset, b"\0")
        case "allocate":
            node.data = node.data.ljust(step.offset, b"\0")
        case "write":
            count = len(step.data)
            if part < 1:
                count = int(part * count) // _SECTOR * _SECTOR
            data = node.data.ljust(step.offset, b"\0") if count else node.data
            node.data = data[: step.offset] + step.data[:count] + data[step.offset + count :]


def write_out(nodes: dict[int, Node], folder: Path, number: int = ROOT) -> None:
    """Make an empty folder hold what a medium holds."""
    for name, inner in nodes[number].entries.items():
        node, path = nodes[inner], folder / name
        if node.kind == "l":
            path.symlink_to(os.fsdecode(node.data))
        elif node.kind == "d":
            path.mkdir()
            write_out(nodes, path, inner)
            path.chmod(node.mode)
        else:
            path.write_bytes(node.data)
            path.chmod(node.mode)
            if node.times_ns:
                os.utime(path, ns=node.times_ns)


def shape(nodes: dict[int, Node], number: int = ROOT) -> object:
    """What tells a state from others."""
    node = nodes[number]
    inside = tuple((name, shape(nodes, each)) for name, each in sorted(node.entries.items()))
    return (node.kind, node.mode, node.data, inside)

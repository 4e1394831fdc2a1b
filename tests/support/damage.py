"""Ways in which a file comes to harm on a disk or on its way."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

Harm = Callable[[bytearray, random.Random], bytearray]


def flip(content: bytearray, chance: random.Random) -> bytearray:
    """One bit."""
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    return content


def cut(content: bytearray, chance: random.Random) -> bytearray:
    """Its end, all of it perhaps."""
    return content[: chance.randrange(len(content))]


def zero(content: bytearray, chance: random.Random) -> bytearray:
    """A stretch, up to a sector's, that was never written; longer, where it was zero before."""
    start = chance.randrange(len(content))
    length = chance.randrange(1, 513)
    while not any(content[start : start + length]) and start:
        start, length = start // 2, length * 2
    content[start : start + length] = bytes(len(content[start : start + length]))
    return content


def swap(content: bytearray, chance: random.Random) -> bytearray:
    """Two bytes that differ."""
    first = chance.randrange(len(content))
    others = [at for at in range(len(content)) if content[at] != content[first]]
    if not others:
        return flip(content, chance)
    second = chance.choice(others)
    content[first], content[second] = content[second], content[first]
    return content


HARMS: Final[Mapping[str, Harm]] = {each.__name__: each for each in (flip, cut, zero, swap)}


def harm(folder: Path, seed: int) -> str:
    """Do one of these to some file of a folder; says what. The file has other bytes afterwards."""
    chance = random.Random(seed)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    path = chance.choice(files)
    name = chance.choice([*HARMS])
    before = path.read_bytes()
    after = bytes(HARMS[name](bytearray(before), chance))
    if after == before:  # it was all zero
        after = bytes(flip(bytearray(before), chance))
    path.write_bytes(after)
    return f"{name} in {path.relative_to(folder)}"

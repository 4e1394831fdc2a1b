"""A small delta that is applied in this process, with something happening at a chosen moment."""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.folders import copied, staging
from weightsmith import fs
from weightsmith.checkpoint.table import read_table
from weightsmith.engine.options import Options
from weightsmith.engine.run import Outcome
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.progress import SILENCE, Progress

SHARDS: Final = 30_000
"""Bytes of a shard: four are made."""


class World:
    """A base and a delta, and what becomes of them."""

    def __init__(self, vectors: Path, home: Path) -> None:
        vector = vectors / "vicuna_v1_1"
        self.base = copied(vector / "base", home / "base", tokenizer=False)
        self.delta = copied(vector / "delta", home / "delta", tokenizer=False)
        self.target = home / "out"
        self.output = staging(self.target) / "output"

    def run(self, progress: Progress = SILENCE, **options: Any) -> Outcome:
        return apply_delta(
            self.base,
            self.delta,
            target=self.target,
            repair=False,
            max_shard_nbytes=SHARDS,
            options=Options(workers=1, **options),
            progress=progress,
        )


def place_in(path: Path) -> int:
    """A byte of the largest tensor in a weight file."""
    tensors, _ = read_table(fs.open_for_reading(path), [])
    return max(tensors, key=lambda tensor: tensor.info.nbytes).offset + 100


def at_step(number: int, act: Callable[[], object]) -> Callable[[], None]:
    """Act once, at the n-th durable step; steps that are made in doing so do not count."""
    left = [number]

    def count() -> None:
        left[0] -= 1
        if left[0] == 0:
            act()

    return count


class Killed(BaseException):
    """Nothing of the process runs any more."""


def killed_at_each_step(patch: pytest.MonkeyPatch, run: Callable[[], object]) -> Iterator[int]:
    """Run it, killed at its first durable step, then at its second, until it comes to its end.

    Yields the step after each kill; whoever asks on has laid out what it is to begin with.
    """

    def die() -> None:
        raise Killed

    for step in itertools.count(1):
        with patch.context() as patched:
            patched.setattr(fs, "on_durable_step", at_step(step, die))
            try:
                run()
            except Killed:
                pass
            else:
                return
        yield step


def interrupt_after(steps: int) -> Callable[[], None]:
    """Press Ctrl-C at every durable step but the first so many."""
    left = [steps]

    def count() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    return count


def flip(path: Path, place: int = -1) -> None:
    """One bit, and its time set back."""
    state, raw = path.stat(), bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))

"""Targets that cannot be made, and unfinished work that must not be mixed."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from unittest import mock

from tests.support.bad_input.answers import command
from tests.support.bad_input.case import ARGS, WEIGHTS, Cases, write_pair, write_sparse
from weightsmith import fs
from weightsmith.errors import Interrupted

TARGETS: Final = Cases("Targets")
ROOM: Final = Cases("Room")
INPUTS: Final = ARGS[:4]
SHARDED: Final = (*ARGS, "--max-shard-size", "50B")
_AFTER_A_SHARD: Final = 8
"""Durable steps: three for the plan, three a shard, and more."""


@TARGETS.add("The target is the base", 2, "target-is-input")
def target_is_base(folder: Path) -> Sequence[str]:
    write_pair(folder)
    return (*INPUTS, "--target", "base", "--overwrite")


@TARGETS.add("The target lies inside the base", 2, "target-is-input")
def target_inside_base(folder: Path) -> Sequence[str]:
    write_pair(folder)
    return (*INPUTS, "--target", "base/out")


@TARGETS.add("The target holds the inputs", 2, "target-is-input")
def target_around_inputs(folder: Path) -> Sequence[str]:
    write_pair(folder)
    return (*INPUTS, "--target", ".", "--overwrite")


@TARGETS.add("The target is a link to the base", 2, "target-is-input")
def target_links_to_base(folder: Path) -> Sequence[str]:
    write_pair(folder)
    (folder / "target").symlink_to("base")
    return (*ARGS, "--overwrite")


@TARGETS.add("Another folder has the target's name", 9, "target-exists")
def a_foreign_folder(folder: Path) -> Sequence[str]:
    write_pair(folder)
    (folder / "target").mkdir()
    (folder / "target" / "thesis.tex").write_text("all of it")
    return ARGS


@TARGETS.add("A file has the target's name", 9, "target-exists")
def a_foreign_file(folder: Path) -> Sequence[str]:
    write_pair(folder)
    (folder / "target").write_text("all of it")
    return ARGS


@TARGETS.add("A link has the target's name", 9, "target-exists")
def a_foreign_link(folder: Path) -> Sequence[str]:
    write_pair(folder)
    (folder / "elsewhere").mkdir()
    (folder / "target").symlink_to("elsewhere")
    return ARGS


@TARGETS.add("The target of another plan is there", 9, "target-exists")
def another_plans_target(folder: Path) -> Sequence[str]:
    write_pair(folder)
    _run(folder, *ARGS)
    return (*ARGS, "--dtype", "float32")


@TARGETS.add("The finished target was damaged since", 9, "target-exists")
def a_damaged_target(folder: Path) -> Sequence[str]:
    write_pair(folder)
    _run(folder, *ARGS)
    with (folder / "target" / WEIGHTS).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    return ARGS


@TARGETS.add("No name for the target follows from the delta's", 2, "no-target-name")
def no_target_name(folder: Path) -> Sequence[str]:
    write_pair(folder)
    return INPUTS


@TARGETS.add("The target's parent is a file", 9, "target-unwritable")
def a_file_as_parent(folder: Path) -> Sequence[str]:
    write_pair(folder)
    (folder / "outputs").touch()
    return (*INPUTS, "--target", "outputs/target")


@TARGETS.add("The target's name is too long for the file system", 9, "target-unwritable")
def a_name_too_long(folder: Path) -> Sequence[str]:
    write_pair(folder)
    return (*INPUTS, "--target", "x" * 250)


@TARGETS.add("The target's parent may not be written to", 9, "target-unwritable", unprivileged=True)
def a_read_only_parent(folder: Path) -> Sequence[str]:
    write_pair(folder)
    (folder / "outputs").mkdir(mode=0o555)
    return (*INPUTS, "--target", "outputs/target")


@TARGETS.add("The target's parent may not be entered", 9, "target-unwritable", unprivileged=True)
def a_closed_parent(folder: Path) -> Sequence[str]:
    write_pair(folder)
    (folder / "outputs").mkdir(mode=0)
    return (*INPUTS, "--target", "outputs/new/target")


@TARGETS.add("A file has the staging's name", 9, "target-unwritable")
def a_file_as_staging(folder: Path) -> Sequence[str]:
    write_pair(folder)
    (folder / ".target.weightsmith-partial").touch()
    return ARGS


# --- unfinished work ------------------------------------------------------------------------------


@TARGETS.add("Unfinished work of another plan", 9, "staging-of-another-plan")
def unfinished_work_of_another_plan(folder: Path) -> Sequence[str]:
    write_pair(folder)
    _interrupt(folder, *SHARDED)
    return (*SHARDED, "--dtype", "float32")


@TARGETS.add("An input changed since the work was begun", 9, "staging-of-another-plan")
def an_input_changed_since(folder: Path) -> Sequence[str]:
    write_pair(folder)
    _interrupt(folder, *SHARDED)
    os.utime(folder / "base" / WEIGHTS, ns=(1, 1))
    return SHARDED


def _run(folder: Path, *args: str) -> int:
    return command(folder, ["apply-delta", *args]).code


def _interrupt(folder: Path, *args: str) -> None:
    """Run a command and press Ctrl-C once a shard is done."""
    steps = itertools.count(1)

    def press() -> None:
        if next(steps) == _AFTER_A_SHARD:
            raise KeyboardInterrupt

    with mock.patch.object(fs, "on_durable_step", press):
        if _run(folder, *args) != Interrupted.exit_code:
            raise RuntimeError(folder)


# --- room -----------------------------------------------------------------------------------------


@ROOM.add("A target larger than the disk", 8, "disk-too-small")
def a_target_larger_than_the_disk(folder: Path) -> Sequence[str]:
    for name in ("base", "delta"):
        (folder / name).mkdir()
        tensors = {f"layers.{n}": ("F16", 2, (2**20, 2**20)) for n in range(4)}
        write_sparse(folder / name / WEIGHTS, tensors)
    return ARGS


@ROOM.add("More workers than the memory is enough for", 8, "memory-too-small")
def more_workers_than_memory(folder: Path) -> Sequence[str]:
    write_pair(folder)
    return (*ARGS, "--workers", "1000000")


@ROOM.add("The disk fills up", 8, "disk-full", file_size_limit=20_000, shows_late=True)
def the_disk_fills_up(folder: Path) -> Sequence[str]:
    write_pair(folder, hidden=1024)
    return ARGS

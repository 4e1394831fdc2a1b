"""Carry out a saved plan in shares, which any processes on any machines with its paths can make."""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from weightsmith.engine import share as engine
from weightsmith.engine.finite import require_finite_inputs
from weightsmith.engine.options import Options
from weightsmith.engine.output import Outcome
from weightsmith.engine.share import Share
from weightsmith.engine.spans import Buffers
from weightsmith.engine.staging import Staging
from weightsmith.errors import PartitionInvalid, PathNotHere, PathUnnamed
from weightsmith.ops.job import Job, needs, require_room
from weightsmith.ops.saved_plan import SavedPlan, parse_saved_plan, read_saved_plan
from weightsmith.progress import SILENCE, Progress

_PARTITION: Final = re.compile(r"([1-9]\d{0,6})/([1-9]\d{0,6})", re.ASCII)
Paths = Mapping[str, str | os.PathLike[str]]


@dataclass(frozen=True, slots=True)
class Partition:
    """Share `number`, counted from 1, of `count` shares of a plan."""

    number: int
    count: int


def parse_partition(text: str) -> Partition:
    """``2/8``, the second of eight.

    Raises: PartitionInvalid.
    """
    found = _PARTITION.fullmatch(text)
    if found is None or int(found[1]) > int(found[2]):
        raise PartitionInvalid(partition=text)
    return Partition(int(found[1]), int(found[2]))


@dataclass(frozen=True, slots=True)
class Opened:
    """A saved plan, and its job with the inputs opened on this machine."""

    saved: SavedPlan
    job: Job

    def run_share(self, which: Partition, options: Options, progress: Progress) -> Share:
        """As the function `run_share`."""
        job = self.job
        numbers = engine.share_of(job.plan, which.number, which.count)
        mine = replace(job.plan, shards=tuple(job.plan.shards[n] for n in numbers), sidecars=())
        require_room(needs(replace(job, plan=mine), options))
        if not options.allow_nonfinite:
            buffers = [Buffers() for _ in range(options.threads)]
            require_finite_inputs(job.bindings.inputs, job.looked_through, buffers, progress)
        return engine.make_share(job.plan, job.bindings, options, numbers, progress)

    def finish(self, options: Options, progress: Progress) -> Outcome:
        """As `finish_plan`."""
        return engine.finish(self.job.plan, self.job.bindings, options, progress)

    def what_is_kept(self) -> str:
        """What an interruption leaves, a sentence."""
        done, total = self.job.finished_count(), len(self.job.plan.shards)
        return f"{done} of {total} files finished and kept: run the same share again"


def run_share(
    plan: str | os.PathLike[str],
    partition: str,
    *,
    paths: Paths | None = None,
    options: Options | None = None,
    progress: Progress = SILENCE,
) -> Share:
    """Make one share, such as ``2/8``, of the files of a saved plan, in the staging directory of
    its target.

    It can be run any number of times, beside other shares, on any machine; files that are finished
    are left as they are. `paths` gives this machine's paths for the names in the plan (``base``,
    ``delta``, ``lora-2``, ``source``, ``target``) where they differ. `options` default to those of
    the plan.
    Memory: as the command that the plan is of.
    Raises: PartitionInvalid; as `opened` and `engine.share.make_share`; DiskTooSmall,
    MemoryTooSmall.
    """
    which = parse_partition(partition)
    with opened(Path(plan), paths or {}, whole=False, progress=progress) as found:
        return found.run_share(which, options or found.saved.options, progress)


def finish_plan(
    plan: str | os.PathLike[str],
    *,
    paths: Paths | None = None,
    options: Options | None = None,
    progress: Progress = SILENCE,
) -> Outcome:
    """Publish the output of a saved plan, once its shares have made all files.

    Every file is read back first, as `options`, or else those of the plan, say.
    Raises: as `opened` and `engine.share.finish`.
    """
    with opened(Path(plan), paths or {}, whole=True, progress=progress) as found:
        return found.finish(options or found.saved.options, progress)


@contextlib.contextmanager
def opened(
    file: Path, paths: Paths, *, whole: bool, progress: Progress = SILENCE
) -> Iterator[Opened]:
    """A saved plan with its inputs opened on this machine; `whole`, to publish its target.

    Raises: as `read_saved_plan` and `open_saved`.
    """
    saved = read_saved_plan(file)
    with open_saved(saved, file, paths, whole=whole, progress=progress) as job:
        yield Opened(saved, job)


def open_share(document: bytes) -> AbstractContextManager[Job]:
    """Open a saved plan, given as bytes and not as a file, for a share on this machine.

    Raises: as `parse_saved_plan` and `open_saved`.
    """
    file = Path("the plan")
    return open_saved(parse_saved_plan(document, file), file, {}, whole=False)


@contextlib.contextmanager
def open_saved(
    saved: SavedPlan, file: Path, paths: Paths, *, whole: bool, progress: Progress = SILENCE
) -> Iterator[Job]:
    """Make a saved plan's job again from the inputs on this machine; `file` is named in messages.

    Raises: PathUnnamed, PathNotHere; InputsNotPlanned, if the plan comes out differently; what
    opening the sources raises.
    """
    known = [*saved.call.sources, "target"]
    for name in paths:
        if name not in known:
            raise PathUnnamed(name=name, names=", ".join(known))
    call = saved.call.with_paths(paths)
    for name, path in call.paths():
        if not os.path.lexists(path):
            raise PathNotHere(name=name, path=path)
    # Publishing reads no weights. A share whose inputs are streamed fetches them into a folder of
    # its own, so that no other share deletes them while they are read.
    streams = whole or bool(call.settings.get("stream"))
    with _scratch(Path(call.target)) as scratch:
        job = call.again(scratch, progress, streams=streams, mends=whole)
        saved.require_same(job.plan, job.bindings, file, whole=whole)
        yield replace(job, plan=saved.plan)


@contextlib.contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """The path of a folder for fetched files that only this process uses, and that is removed
    afterwards; the user of it makes it.

    It is in the staging directory: there is room for weight files there, and what a killed run
    leaves is removed with it.
    """
    staging = Staging(target)
    folder = staging.inputs / secrets.token_hex(8)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # other shares use it, or it was never made
            staging.inputs.rmdir()
            staging.path.rmdir()

"""A planned run of any verb: check that there is room for it, and carry it out."""

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, ParamSpec

from weightsmith.catalogue.schema import Release
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.engine import run as engine
from weightsmith.engine.derived import Derived
from weightsmith.engine.executors.executor import Executor
from weightsmith.engine.executors.local import THREADS
from weightsmith.engine.executors.ray import connected
from weightsmith.engine.executors.ray_node import Recipe
from weightsmith.engine.file_hashes import hash_files
from weightsmith.engine.finite import require_finite_inputs
from weightsmith.engine.inputs import streamed_nbytes
from weightsmith.engine.options import Bindings, Options
from weightsmith.engine.share import is_published
from weightsmith.engine.spans import Buffers
from weightsmith.engine.staging import Staging, is_vacant
from weightsmith.errors import (
    BaseFilesWrong,
    DiskTooSmall,
    DownloadTooLarge,
    MemoryTooSmall,
    OptionMeaningless,
    PlanNotSaved,
    TargetExists,
    TargetIsInput,
    TargetUnnamed,
    TargetUnwritable,
)
from weightsmith.ops.call import Call, arguments_of
from weightsmith.ops.saved_plan import SavedPlan
from weightsmith.plan.model import InputFile, InputPlan, Plan
from weightsmith.plan.needs import Needs, assess
from weightsmith.progress import SILENCE, Progress
from weightsmith.sources.file_release import KnownFile
from weightsmith.sources.locate import Located
from weightsmith.units import format_memory, format_size

_OPENER: Final = "weightsmith.ops.run_plan:open_share"
"""The function that opens a job in a task of a cluster."""


@dataclass(frozen=True, slots=True)
class Job:
    """A planned run: the plan, and the opened inputs that it is run on."""

    plan: Plan
    bindings: Bindings
    release: Release | None = None
    """The release that is applied, if the catalogue knows it for certain."""
    faults: tuple[str, ...] = ()
    """Known faults in the sidecars that will be published as they are, as sentences."""
    checked: tuple[str, ...] = ()
    """Sentences on how the inputs' files compare with published hashes."""
    known: tuple[KnownFile, ...] = ()
    """Input files that must have published hashes; compared before anything is written."""
    looked_through: tuple[str, ...] = ()
    """Roles of small inputs that are searched for NaN and infinity before anything is written."""
    asked: Callable[[], Call] | None = field(default=None, repr=False, compare=False)
    """Gives the call that made the plan; None if another process cannot repeat it."""

    def finished_count(self) -> int:
        """How many files of the output an earlier run of this plan has finished and left."""
        staging = Staging(self.bindings.target)
        return staging.finished_count() if staging.holds(self.plan) else 0

    def run(self, options: Options | None = None, progress: Progress = SILENCE) -> engine.Outcome:
        """Write what was planned to a new directory, whole or not at all.

        Memory: a few spans of 2 MiB a worker; it does not depend on the model.
        Raises: DiskTooSmall, MemoryTooSmall, BaseFilesWrong, before anything is written; and as
        `engine.run.run`.
        """
        return carry_out(self, options or Options(), progress)

    def save(
        self,
        path: str | os.PathLike[str],
        options: Options | None = None,
        progress: Progress = SILENCE,
    ) -> None:
        """Save the plan, and where its inputs are, to a file for `run_share` and `finish_plan`.

        No other file is written. What can be checked before a run is checked now.
        Raises: PlanNotSaved; BaseFilesWrong, NotFinite; TargetExists, if something has the
        target's name that the plan may not replace; TargetUnwritable, DiskFull.
        """
        chosen = options or Options()
        call = self.call()
        if chosen.executor != "threads":
            reason = "a saved plan is carried out by whatever starts its shares"
            raise OptionMeaningless(options="`executor`", reason=reason)
        if chosen.restart:
            reason = "shares of a plan discard nothing; delete what is unfinished yourself"
            raise OptionMeaningless(options="`restart`", reason=reason)
        _require_free(self, chosen)
        _require_inputs(self, chosen, progress)
        file = Path(path)
        try:
            SavedPlan.of(self.plan, self.bindings, call, chosen).write(file)
        except OSError as error:
            raise TargetUnwritable(where=file, reason=error.strerror) from error

    def call(self) -> Call:
        """How the plan was asked for.

        Raises: PlanNotSaved, if another process cannot ask for it again.
        """
        if self.asked is None:
            raise PlanNotSaved(reason=f"{self.plan.verb} works in one process")
        return self.asked()


Planner = ParamSpec("Planner")


def recorded(
    verb: str,
) -> Callable[[Callable[Planner, Job]], Callable[Planner, Job]]:
    """Decorate the function that plans `verb`: its jobs record the call that made them, so that
    another process can make the same plan.
    """

    def decorate(planner: Callable[Planner, Job]) -> Callable[Planner, Job]:
        @functools.wraps(planner)
        def planned(*args: Planner.args, **kwargs: Planner.kwargs) -> Job:
            job = planner(*args, **kwargs)
            origins = [each.origin for each in job.plan.inputs if each.origin]
            arguments = arguments_of(planner, args, kwargs)
            return replace(job, asked=functools.partial(Call.of, verb, arguments, origins))

        return planned

    return decorate


def input_plans(inputs: Mapping[str, Checkpoint]) -> tuple[InputPlan, ...]:
    """What a plan records of its inputs: role, files with header digests, rules, origin."""
    return tuple(
        InputPlan(
            role,
            tuple(InputFile(f.name, f.size, f.header_digest) for f in c.files),
            c.rules,
            c.origin,
        )
        for role, c in inputs.items()
    )


def target_apart(target: str | os.PathLike[str], inputs: Mapping[str, Checkpoint]) -> Path:
    """The target as an absolute path, which no input may overlap.

    Raises: TargetIsInput; TargetUnwritable for a mount point; TargetUnnamed for no name.
    """
    if not os.fspath(target):  # an unset variable, say; as a path it would be the working directory
        raise TargetUnnamed
    path = Path(os.path.abspath(target))  # noqa: PTH100  (a link as target is refused, not followed)
    ours = Path(os.path.realpath(path))
    for checkpoint in _read(inputs):
        files = (checkpoint.directory / file.name for file in checkpoint.files)
        for place in (checkpoint.directory, *files):  # a file may be a link to elsewhere
            theirs = Path(os.path.realpath(place))
            if ours == theirs or ours in theirs.parents or theirs in ours.parents:
                raise TargetIsInput(target=path, source=checkpoint.label)
    if os.path.ismount(path):  # Path.is_mount would raise where a name is too long
        reason = "it is a mount point, which nothing can be renamed onto"
        raise TargetUnwritable(where=path, reason=reason, hint=f"use {path}/NAME")
    return path


def _read(inputs: Mapping[str, Checkpoint]) -> Iterator[Checkpoint]:
    """The inputs, and of a chain each model and delta in it."""
    for checkpoint in inputs.values():
        yield checkpoint
        if isinstance(checkpoint, Derived):
            yield from checkpoint.leaves


def needs(job: Job, options: Options, to_fetch: Iterable[Located] = ()) -> Needs:
    """The disk and memory that the job needs, and that this machine has; files that an earlier run
    finished are not counted again.

    Sources in `to_fetch` are downloaded to the hub's cache first, instead of being streamed.
    """
    staging = Staging(job.bindings.target)
    kept = 0
    if not options.restart and staging.holds(job.plan):
        kept = staging.output_nbytes()
    fetched = [each for each in to_fetch if each.store is not None]
    stores = [each.store for each in fetched if each.store is not None]
    inputs, origins = job.bindings.inputs, {each.origin for each in fetched}
    whole = [role for role, checkpoint in inputs.items() if checkpoint.origin in origins]
    streamed = streamed_nbytes(job.plan.shards, inputs, but=whole)
    return assess(
        job.plan,
        _standing(job.bindings.target.parent),
        workers=options.threads,
        kept_nbytes=kept,
        streamed_nbytes=streamed,
        fetched_nbytes=sum(store.missing_nbytes for store in stores),
        held_nbytes=sum(checkpoint.held_nbytes for checkpoint in inputs.values()),
        cache=_standing(stores[0].cache) if stores else None,
    )


def _standing(path: Path) -> Path:
    """The directory, or the nearest one above it that exists."""
    # Path.is_dir would raise where it may not look.
    return next(each for each in (path, *path.parents) if os.path.isdir(each))  # noqa: PTH112


def require_room(found: Needs) -> None:
    """Raises: DownloadTooLarge; DiskTooSmall, unless the output may turn out smaller;
    MemoryTooSmall.
    """
    free = found.cache_free_nbytes
    if found.cache is not None and free is not None and found.fetched_nbytes > free:
        raise DownloadTooLarge(
            where=found.cache,
            free=format_size(free),
            needed=format_size(found.fetched_nbytes),
        )
    free = found.disk_free_nbytes
    if free is not None and found.disk_nbytes > free and not found.is_at_most:
        raise DiskTooSmall(
            where=found.where,
            free=format_size(free),
            needed=format_size(found.disk_nbytes),
        )
    if found.memory_free_nbytes is not None and found.memory_nbytes > found.memory_free_nbytes:
        raise MemoryTooSmall(
            free=format_memory(found.memory_free_nbytes), needed=format_memory(found.memory_nbytes)
        )


def carry_out(job: Job, options: Options, progress: Progress = SILENCE) -> engine.Outcome:
    """Run a job after checking that there is room for it and that its inputs are sound.

    Raises: DiskTooSmall, MemoryTooSmall, BaseFilesWrong, NotFinite, before anything is written; and
    as `engine.run.run`.
    """
    require_room(needs(job, options))
    with _executor(job, options) as executor:
        _require_inputs(job, options, progress)
        return engine.run(job.plan, job.bindings, options, progress, executor)


def _executor(job: Job, options: Options) -> AbstractContextManager[Executor]:
    """What makes the output's files: threads here, or tasks of a Ray cluster.

    Raises: PlanNotSaved, PackageMissing, ClusterNotFound.
    """
    if options.executor == "threads":
        return nullcontext(THREADS)
    call = job.call()
    document = SavedPlan.of(job.plan, job.bindings, call, options).to_bytes()
    paths = tuple(path for _, path in call.paths())
    return connected(options.ray_address, Recipe(document, _OPENER, paths))


def _require_free(job: Job, options: Options) -> None:
    """Raises: TargetExists, if something has the target's name that may not be replaced."""
    target = job.bindings.target
    if not (options.overwrite or is_vacant(target) or is_published(job.plan, target)):
        raise TargetExists(target=target, reason="nothing in it says that this plan made it")


def _require_inputs(job: Job, options: Options, progress: Progress) -> None:
    """Check the inputs before anything is written: files have the hashes that a release needs, and
    adapters hold neither NaN nor infinity.

    Raises: BaseFilesWrong, NotFinite.
    """
    _require_known(job, options, progress)
    if not options.allow_nonfinite:
        buffers = [Buffers() for _ in range(options.threads)]
        require_finite_inputs(job.bindings.inputs, job.looked_through, buffers, progress)


def _require_known(job: Job, options: Options, progress: Progress) -> None:
    """Hash the input files that must have published hashes, unless an earlier run has begun this
    plan and so has hashed them.

    Raises: BaseFilesWrong.
    """
    begun = Staging(job.bindings.target).holds(job.plan)
    if not job.known or begun or not is_vacant(job.bindings.target):
        return
    buffers = [Buffers() for _ in range(options.threads)]
    wanted: dict[Path, set[str]] = {}
    for each in job.known:
        wanted.setdefault(each.path, set()).add(each.algorithm)
    progress.begin("checking the base", sum(path.stat().st_size for path in wanted))
    found = hash_files(wanted, buffers, progress.advance)
    wrong = [
        f"{each.path.name} has another {each.algorithm} than the file that the release needs"
        for each in job.known
        if found[each.path][each.algorithm] != each.digest
    ]
    if wrong:
        delta = job.bindings.inputs["delta"].label
        raise BaseFilesWrong(delta=delta, count=len(wrong), context=wrong)

"""What all commands that write a model share: options on how to run, and the run itself."""

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import click
from click.core import ParameterSource

from weightsmith.cli.checks_view import run_smoke, tokenizer_faults
from weightsmith.cli.layout import styled
from weightsmith.cli.options import (
    CLUSTER,
    OUTPUT,
    SAFETY,
    SIZE,
    SMOKE,
    SPEED,
    FilePath,
    dry_run_option,
    offline_option,
    option,
)
from weightsmith.cli.output import Output, command_line
from weightsmith.cli.plan_view import show_dry_run, show_outcome, show_plan, told
from weightsmith.cli.sources import located, passing_directory
from weightsmith.engine.options import ExecutorName, Options, Verify, default_workers
from weightsmith.errors import OptionMeaningless
from weightsmith.ops.job import Job, carry_out
from weightsmith.ops.job import needs as assess_needs
from weightsmith.ops.verify.published_sum import sum_report
from weightsmith.ops.verify.smoke import Settings
from weightsmith.sources.locate import Located, Wanted
from weightsmith.units import counted

VERIFIED: Final[dict[Verify, str]] = {
    "cache": "read back and verified",
    "disk": "read back from disk and verified",
    "no": "not verified",
}

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Run:
    """How a command that writes a model is to run, as its options say."""

    options: Options
    max_shard_nbytes: int
    max_shard_given: bool
    dry_run: bool
    smoke: bool
    offline: bool
    all_sidecars: bool
    """Take files beside the weights that are large too."""
    repair: bool
    """Mend known faults of tokenizer and config files."""
    save_plan: Path | None = None
    """Save the plan there, and leave making its files to `run-plan`."""
    started_s: float = field(default_factory=time.monotonic)
    to_fetch: list[Located] = field(default_factory=list)
    """Sources that the run would fetch first, if this were not a dry run."""

    def located(
        self, output: Output, source: str, *, kind: Wanted = "model", spool: Path | None = None
    ) -> str | os.PathLike[str]:
        """The source as a path, downloaded first if it is on the hub.

        A dry run, and a run that only saves a plan, download no weights and keep nothing.
        """
        streams = spool is not None
        if self.dry_run or self.save_plan is not None:
            spool = passing_directory()
        found = located(output, source, kind=kind, offline=self.offline, spool=spool)
        fetches = isinstance(found, Located) and found.store and found.store.missing_nbytes
        if self.dry_run and not streams and isinstance(found, Located) and fetches:
            self.to_fetch.append(found)
        return found

    def perform(self, output: Output, job: Job) -> int:
        """Show the plan and carry it out; or only show it, or save it, if that was asked for.

        Returns the exit code: 1 if the smoke test failed, although the result is in its place.
        """
        needs = assess_needs(job, self.options, self.to_fetch)
        show_plan(output, job, needs)
        if self.dry_run:
            show_dry_run(output, job, needs)
            return 0
        if self.save_plan is not None:
            self._save(output, job, self.save_plan)
            return 0
        planned = told(job, needs)
        output.kept = functools.partial(what_is_kept, job)
        sums = None
        with output.progress() as progress:
            outcome = carry_out(job, self.options, progress)
            if job.release is not None and job.release.sums and not outcome.already_done:
                sums = sum_report(
                    outcome.target,
                    job.release,
                    job.bindings.inputs,
                    threads=self.options.threads,
                    progress=progress,
                )
        elapsed_s = time.monotonic() - self.started_s
        verified = VERIFIED[self.options.verify]
        smoked = None
        output.kept = lambda: f"{outcome.target} is finished; its smoke test was stopped"
        try:
            if self.smoke:
                settings = Settings(low_cpu_mem=self.options.low_cpu_mem)
                smoked = run_smoke(output, str(outcome.target), settings)
        finally:  # the result is in its place, however its smoke test ends
            show_outcome(
                output,
                outcome,
                sums,
                smoked,
                elapsed_s=elapsed_s,
                verified=verified,
                planned=planned,
                cure=tokenizer_faults(outcome.target)[1] if job.faults else "",
            )
        if smoked is None or smoked.passed:
            return 0
        output.warning(f"the smoke test failed; {outcome.target} stays as it is")
        return 1

    def _save(self, output: Output, job: Job, path: Path) -> None:
        """Save the plan for `run-plan`, and say what to do next.

        Raises: OptionMeaningless, for a smoke test; as `Job.save`.
        """
        if self.smoke:
            reason = "the output is not made yet; weightsmith verify DIR --smoke tests it"
            raise OptionMeaningless(options="`check_smoke=True`", reason=reason)
        with output.progress() as progress:
            job.save(path, self.options, progress)
        count = counted(len(job.plan.shards), "file")
        output.result(
            {
                "schema": "weightsmith.save-plan/1",
                "plan_file": str(path),
                "target": str(job.bindings.target),
                "files": [shard.name for shard in job.plan.shards],
                "paths": {**job.call().sources, "target": str(job.bindings.target)},
                "plan_digest": job.plan.digest,
            },
            human=f"{styled('saved', 'green')}  {path}: {count} to make\n"
            "       run each share, 1/4 to 4/4 for example, on any machine; then --finish once",
            quiet=str(path),
            then=command_line(["weightsmith", "run-plan", path, "--partition", "1/4"]),
        )


def what_is_kept(job: Job) -> str:
    """What an interrupted run leaves for the next: ``3 of 7 files are finished and kept``."""
    done, total = job.finished_count(), len(job.plan.shards)
    if not done:
        return f"0 of {total} files finished: nothing is kept"
    return f"{done} of {total} files finished and kept; --restart would discard them"


def run_options(function: F) -> F:
    """Add the options of every run; the command gets them as one value, ``run``."""

    @functools.wraps(function)
    def gathered(
        *args: Any,
        max_shard_size: int,
        dry_run: bool,
        low_cpu_mem: bool,
        workers: int,
        verify: Verify,
        overwrite: bool,
        restart: bool,
        smoke: bool,
        offline: bool,
        all_sidecars: bool,
        no_repair: bool,
        allow_nonfinite: bool,
        save_plan: Path | None,
        executor: ExecutorName,
        ray_address: str | None,
        **others: Any,
    ) -> Any:
        context = click.get_current_context()
        if ray_address is not None and executor != "ray":
            raise click.UsageError("--ray-address belongs to --executor ray")
        if executor == "ray" and _is_default(context, "workers"):
            workers = 1  # a task takes as many CPUs: the cluster has room for more tasks instead
        options = Options(
            executor=executor,
            ray_address=ray_address or "auto",
            workers=workers,
            low_cpu_mem=low_cpu_mem,
            verify=verify,
            overwrite=overwrite,
            restart=restart,
            allow_nonfinite=allow_nonfinite,
        )
        run = Run(
            options=options,
            max_shard_nbytes=max_shard_size,
            max_shard_given=not _is_default(context, "max_shard_size"),
            dry_run=dry_run,
            smoke=smoke,
            offline=offline,
            all_sidecars=all_sidecars,
            repair=not no_repair,
            save_plan=save_plan,
        )
        return function(*args, run=run, **others)

    for decorate in reversed(_OPTIONS):
        gathered = decorate(gathered)
    return gathered  # type: ignore[return-value]  # click sees the options, the command `run`


def _is_default(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.DEFAULT


DTYPE_ALL: Final = option(
    "--dtype-all",
    group=OUTPUT,
    is_flag=True,
    help="Cast even what the architecture keeps in float32 on purpose.",
)
ALL_SIDECARS: Final = option(
    "--all-sidecars",
    group=OUTPUT,
    is_flag=True,
    help="Copy also files beside the weights that are larger than 64 MB.",
)
NO_REPAIR: Final = option(
    "--no-repair",
    group=OUTPUT,
    is_flag=True,
    help="Copy tokenizer and config files as they are, without mending known faults.",
)
LOW_CPU_MEM: Final = option(
    "--low-cpu-mem",
    group=SPEED,
    is_flag=True,
    help="Use as little memory as possible, with one worker; same result.",
)
WORKERS: Final = option(
    "--workers",
    group=SPEED,
    type=click.IntRange(min=1),
    default=default_workers,
    help="Threads; default: one for each core, at most four.",
)
STREAM: Final = option(
    "--stream",
    group=SPEED,
    is_flag=True,
    help="Fetch each weight file from the hub when it is read, and delete it afterwards.",
)
OVERWRITE: Final = option(
    "--overwrite",
    group=SAFETY,
    is_flag=True,
    help="Replace what is at the target, once the new one is whole.",
)
RESTART: Final = option(
    "--restart", group=SAFETY, is_flag=True, help="Discard the unfinished work of an earlier run."
)

_OPTIONS: Final = (
    option(
        "--max-shard-size",
        group=OUTPUT,
        type=SIZE,
        default="5GB",
        show_default=True,
        help="Size of the largest output file.",
    ),
    ALL_SIDECARS,
    NO_REPAIR,
    LOW_CPU_MEM,
    WORKERS,
    option(
        "--executor",
        group=CLUSTER,
        type=click.Choice(get_args(ExecutorName)),
        default="threads",
        show_default=True,
        help="threads: on this machine; ray: as tasks of a Ray cluster.",
    ),
    option(
        "--ray-address",
        group=CLUSTER,
        metavar="auto|HOST:PORT",
        help="Address of the Ray cluster; default: auto.",
    ),
    option(
        "--save-plan",
        group=CLUSTER,
        type=FilePath(dir_okay=False, path_type=Path),
        metavar="PLAN.json",
        help="Only save the plan to this file, for run-plan on any machines.",
    ),
    option(
        "--verify",
        group=SAFETY,
        type=click.Choice(get_args(Verify)),
        default="cache",
        show_default=True,
        help="Read back what was written: from the page cache, from disk, or not.",
    ),
    OVERWRITE,
    RESTART,
    option(
        "--allow-nonfinite",
        group=SAFETY,
        is_flag=True,
        help="Accept an adapter or a delta that holds NaN or infinity.",
    ),
    dry_run_option,
    offline_option,
    option(
        "--smoke",
        group=SMOKE,
        is_flag=True,
        help="Afterwards load the result with transformers and have it write a text.",
    ),
)

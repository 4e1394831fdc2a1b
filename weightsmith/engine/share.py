"""An output made in shares: some of its files by each of several processes, on any machines that
see the staging directory, and all of it published by one.

`shared_staging` says how they keep out of each other's way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from weightsmith.engine.executors.executor import Work
from weightsmith.engine.executors.local import make_shards, nbytes_to_do
from weightsmith.engine.manifest import Manifest, read_manifest
from weightsmith.engine.options import Bindings, Options
from weightsmith.engine.output import Outcome
from weightsmith.engine.receipts import Receipt, machine, read_receipt, require_one_machine
from weightsmith.engine.run import ModelMaking
from weightsmith.engine.shared_staging import SharedStaging
from weightsmith.engine.staging import Staging, is_vacant
from weightsmith.errors import (
    DamagedInput,
    DecodedWrong,
    DeltaInvalid,
    SharesMissing,
    SourceFault,
    StagingBusy,
    StagingOfAnotherPlan,
    VerificationFailed,
)
from weightsmith.plan.model import Plan, ShardPlan
from weightsmith.progress import SILENCE, Progress


@dataclass(frozen=True, slots=True)
class Share:
    """What one process did of a plan."""

    target: Path
    made: tuple[str, ...]
    """Names of the files that it made."""
    kept: tuple[str, ...]
    """Those of its files that were finished before, by whomever."""
    published: bool = False
    """The whole target was finished by this plan before."""


def share_of(plan: Plan, number: int, count: int) -> list[int]:
    """Which shards the share `number` of `count` has, from 1: neighbours, for they mostly come from
    the same input files, and about as many bytes as any other share.

    Every shard is in one share; where there are fewer shards than shares, some shares are empty.
    """
    total = max(sum(shard.nbytes for shard in plan.shards), 1)
    before, mine = 0, []
    for index, shard in enumerate(plan.shards):
        middle = 2 * before + shard.nbytes  # of the shard, in halves of bytes
        if min(middle * count // (2 * total), count - 1) == number - 1:
            mine.append(index)
        before += shard.nbytes
    return mine


def make_share(
    plan: Plan,
    bindings: Bindings,
    options: Options,
    numbers: Sequence[int],
    progress: Progress = SILENCE,
) -> Share:
    """Make these shards in the target's staging; any number of times, beside any number of others.

    Those that are finished are left as they are. Nothing is published.
    Raises: StagingOfAnotherPlan, StagingBusy, TargetUnwritable; MachinesDiffer; as `run`.
    """
    target, names = bindings.target, [plan.shards[number].name for number in numbers]
    if is_published(plan, target):
        return Share(target, (), tuple(names), published=True)
    work = _Share(plan, bindings, options, progress)
    staging = work.shared
    staging.join([each.directory for each in bindings.inputs.values()])
    todo = _unfinished(staging, plan, numbers)
    _require_this_machine(staging, plan)
    kept = [plan.shards[number].name for number in numbers if number not in todo]
    if todo:
        total = sum(nbytes_to_do(plan.shards[n], options.verify, kept=False) for n in todo)
        progress.begin("writing and checking" if options.verify != "no" else "writing", total)
    while todo:
        try:
            with staging.own_folder() as folder:
                make_shards(work, todo, folder, partial(_settle, staging, plan, folder))
            break
        except StagingBusy:
            # Another process made one of these files faster, and cleared away what it took for
            # left behind: go on with the others.
            left = _unfinished(staging, plan, todo)
            if len(left) == len(todo):
                if is_published(plan, target):
                    break
                raise
            todo = left
    for number in numbers:
        staging.discard_begun(plan.shards[number])
    return Share(target, tuple(name for name in names if name not in kept), tuple(kept))


def finish(
    plan: Plan, bindings: Bindings, options: Options, progress: Progress = SILENCE
) -> Outcome:
    """Publish what the shares made: check every receipt and read every file back, as `options`
    say, write what lies beside the files, and give the target its name.

    Raises: SharesMissing, naming the files that are not finished; VerificationFailed for one that
    is not what its receipt says, which its share then makes anew; as `Making.run`.
    """
    target = bindings.target
    if is_vacant(target) and Staging(target).plan_digest() is None:
        raise _missing(plan, [shard.name for shard in plan.shards], target)
    return _Finish(plan, bindings, options, progress, _NOBODY).run()


def is_published(plan: Plan, target: Path) -> bool:
    """Whether the target's manifest says that this plan finished it."""
    try:
        manifest = read_manifest(target)
    except (DamagedInput, SourceFault):
        return False
    return manifest is not None and manifest.plan == plan.digest


class _Nobody:
    """The executor of a plan whose files are all made."""

    anywhere = True

    def make(self, work: Work, numbers: Sequence[int]) -> Mapping[str, Receipt]:  # noqa: ARG002
        """Nothing: the files that are missing were refused before."""
        return {}


_NOBODY = _Nobody()


class _Share(ModelMaking):
    """A model of which some shards are made here."""

    def __init__(
        self, plan: Plan, bindings: Bindings, options: Options, progress: Progress
    ) -> None:
        """Nothing is touched yet."""
        super().__init__(plan, bindings, options, progress)
        self.shared = self.staging = SharedStaging(bindings.target, plan)


class _Finish(ModelMaking):
    """A model of which all shards are made."""

    def gives(self, finished: Manifest) -> bool:  # noqa: ARG002
        """It does: a saved plan knows its inputs by their times too."""
        return True

    def kept(self) -> Mapping[str, Receipt]:
        """The receipts of all shards.

        Raises: SharesMissing; StagingOfAnotherPlan, MachinesDiffer.
        """
        try:
            kept = super().kept()
        except StagingOfAnotherPlan as error:
            shared = SharedStaging(self.bindings.target, self.plan)
            reason = error.values["reason"]
            raise shared.of_another_plan(reason, error.context) from error
        missing = [shard.name for shard in self.plan.shards if shard.name not in kept]
        if missing:
            raise _missing(self.plan, missing, self.bindings.target)
        return kept

    def require_kept(self, shard: ShardPlan, made: Receipt) -> None:
        """As the model's; a file that does not hold loses its receipt, and so is made again."""
        try:
            super().require_kept(shard, made)
        except (VerificationFailed, DeltaInvalid, DecodedWrong) as error:
            (self.staging.receipts / f"{shard.name}.json").unlink(missing_ok=True)
            file, hint = self.staging.output / shard.name, "run its share again, then finish"
            raise VerificationFailed(file=file, reason=error, hint=hint) from error


def _missing(plan: Plan, names: Sequence[str], target: Path) -> SharesMissing:
    return SharesMissing(count=len(names), total=len(plan.shards), target=target, context=names)


def _settle(staging: SharedStaging, plan: Plan, folder: Path, name: str) -> None:
    staging.settle(folder, next(shard for shard in plan.shards if shard.name == name))


def _unfinished(staging: SharedStaging, plan: Plan, numbers: Sequence[int]) -> list[int]:
    return [number for number in numbers if not staging.is_finished(plan.shards[number])]


def _require_this_machine(staging: SharedStaging, plan: Plan) -> None:
    """Raises: MachinesDiffer, if files were made on another type of CPU and it matters."""
    if not plan.multiplies:
        return
    machines = {"this machine": machine(plan)}
    for shard in plan.shards:
        if (receipt := read_receipt(staging.receipts, shard)) is not None:
            machines[shard.name] = receipt.machine
    require_one_machine(machines)

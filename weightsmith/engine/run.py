"""Run a plan: fill each shard, sync it, read it back, leave a receipt; then publish all at once."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import open_checkpoint
from weightsmith.engine.bindings import Bindings, Options
from weightsmith.engine.decoded import (
    digest_decoded,
    manifest_of_files,
    open_output,
    require_published,
)
from weightsmith.engine.expected import require_expected
from weightsmith.engine.finished import damage
from weightsmith.engine.inputs import Countdown
from weightsmith.engine.manifest import NAME as MANIFEST
from weightsmith.engine.manifest import Manifest, manifest_of, read_manifest
from weightsmith.engine.progress import SILENCE, Progress
from weightsmith.engine.receipts import Receipt, machine, made_from, read_receipt
from weightsmith.engine.shard import fill, read_back
from weightsmith.engine.spans import Buffers, digest_tensors
from weightsmith.engine.staging import Staging, is_vacant
from weightsmith.errors import (
    DamagedInput,
    InputChanged,
    SourceFault,
    StagingOfAnotherPlan,
    TargetExists,
    VerificationFailed,
    WeightsmithError,
    shown,
)
from weightsmith.formats.index import build_index
from weightsmith.plan.model import FilePlan, Plan, RestoredPlan, ShardPlan

INDEX: Final = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did."""

    target: Path
    manifest: Manifest
    kept: int
    """Shards that an earlier, interrupted run had finished."""
    already_done: bool
    """The target was there, finished by the same plan, and is sound."""


def run(plan: Plan, bindings: Bindings, options: Options, progress: Progress = SILENCE) -> Outcome:
    """Make the planned output and publish it under its final name, whole or not at all.

    Running the same plan again continues what was interrupted, and keeps what was finished.
    Raises: InTheWay for a target or staging that is not this plan's; DiskFull; VerificationFailed;
    InputChanged; whatever reading the inputs meets.
    """
    staging = Staging(bindings.target)
    staging.recover()
    in_order = any(each.sequential for each in bindings.inputs.values())
    buffers = [Buffers() for _ in range(1 if in_order else options.threads)]
    finished = _finished(plan, bindings, options, buffers, progress)
    if finished is not None:
        staging.discard_leftovers(plan)
        return Outcome(bindings.target, finished, kept=len(plan.shards), already_done=True)
    with staging.held():
        staging.claim(plan, restart=options.restart)
        kept = kept_receipts(plan, bindings, staging)
        if kept:
            progress.note(f"continuing: {len(kept)} of {len(plan.shards)} shard(s) are done")
        digests = _make_shards(plan, bindings, options, staging, buffers, kept, progress)
        manifest = _complete(plan, bindings, staging, digests, buffers, progress)
        staging.publish(overwrite=options.overwrite)
    return Outcome(bindings.target, manifest, kept=len(kept), already_done=False)


def run_shard(
    plan: Plan,
    bindings: Bindings,
    number: int,
    output: Path,
    options: Options,
    buffers: Sequence[Buffers],
    countdown: Countdown,
    progress: Progress,
) -> tuple[fs.PositionedFile, dict[str, str]]:
    """Write shard `number` into the directory `output`, not yet synced; pure and idempotent.

    Returns the open file and the digests of its tensors by name.
    """
    shard = plan.shards[number]
    file = fs.create(output / shard.name)
    drop_cache = options.low_cpu_mem
    digests = fill(
        shard, bindings.inputs, file, buffers, progress.advance, countdown, drop_cache=drop_cache
    )
    return file, digests


def kept_receipts(plan: Plan, bindings: Bindings, staging: Staging) -> dict[str, Receipt]:
    """The receipts that an earlier run of the same plan left and that still hold, by shard.

    Raises: StagingOfAnotherPlan, if an input changed since: its old and new bytes must not mix.
    """
    kept = {}
    for shard in plan.shards:
        receipt = read_receipt(staging.receipts, shard)
        path = staging.output / shard.name
        if receipt is None or not path.is_file() or path.stat().st_size != shard.nbytes:
            continue
        now = made_from(shard, bindings.inputs)
        if (receipt.plan_digest, receipt.machine) != (plan.digest, machine(plan)):
            raise StagingOfAnotherPlan(staging=staging.path, reason="it was made elsewhere")
        if receipt.made_from != now:
            changed = [
                f"{role}: {file[0]}"
                for role, files in now.items()
                for file in files
                if file not in receipt.made_from.get(role, [])
            ]
            raise StagingOfAnotherPlan(
                staging=staging.path, reason="an input changed since", context=changed
            )
        kept[shard.name] = receipt
    return kept


def _finished(
    plan: Plan,
    bindings: Bindings,
    options: Options,
    buffers: Sequence[Buffers],
    progress: Progress,
) -> Manifest | None:
    """The manifest of a sound target of the same plan; None where the run has work to do.

    Raises: TargetExists, if anything else is in the way and may not be replaced.
    """
    target = bindings.target
    if is_vacant(target):
        return None
    try:
        manifest = read_manifest(target) if target.is_dir() else None
    except (DamagedInput, SourceFault):
        manifest = None
    if not target.is_dir():
        reason = "it is no directory"
    elif manifest is None:
        reason = "weightsmith did not finish it"
    elif otherwise := made_otherwise(plan, bindings, manifest):
        reason = otherwise
    else:
        progress.begin("checking", sum(shard.data_nbytes for shard in plan.shards))
        problems = _damage(target, plan, manifest, buffers, progress)
        if not problems:
            expected = _manifest(plan, manifest.tensors, target)
            expected = replace(expected, made_by=manifest.made_by)
            if (target / MANIFEST).read_bytes() != expected.to_json():
                problems.append(f"{MANIFEST} was changed")
        if not problems:
            return manifest
        reason = f"it is damaged: {'; '.join(shown(problems))}"
    if not options.overwrite:
        raise TargetExists(target=target, reason=reason)
    return None


def _damage(
    target: Path,
    plan: Plan,
    manifest: Manifest,
    buffers: Sequence[Buffers],
    progress: Progress,
) -> list[str]:
    """What is wrong with a finished target, as sentences; reads all of it."""
    try:
        checkpoint = open_output(target) if plan.makes_files else open_checkpoint(target)
    except WeightsmithError as error:
        return [str(error)]
    infos = [tensor.info for tensor in checkpoint.tensors.values()]
    digests = digest_tensors(infos, checkpoint.read_into, buffers, progress.advance)
    return damage(checkpoint, manifest, digests)


def made_otherwise(plan: Plan, bindings: Bindings, manifest: Manifest) -> str:
    """Why a finished output is not what the plan would make of these inputs; empty if it is.

    Inputs that were modified after it was finished count, as ``make`` would have it.
    """
    if manifest.plan != plan.digest:
        return "another plan made it"
    finished_ns = (bindings.target / MANIFEST).stat().st_mtime_ns
    for checkpoint in bindings.inputs.values():
        for file in checkpoint.files:
            if file.mtime_ns > finished_ns:
                return f"{checkpoint.directory / file.name} is newer than it"
    return ""


def _make_shards(
    plan: Plan,
    bindings: Bindings,
    options: Options,
    staging: Staging,
    buffers: Sequence[Buffers],
    kept: Mapping[str, Receipt],
    progress: Progress,
) -> dict[str, str]:
    """Make every shard that is not kept; returns the digests of all tensors."""
    passes = 1 if options.verify == "no" else 2
    total = sum(_nbytes_to_do(s, options, kept=s.name in kept) for s in plan.shards)
    progress.begin("writing" if passes == 1 else "writing and checking", total)
    digests: dict[str, str] = {}
    missing = [shard for shard in plan.shards if shard.name not in kept]
    countdown = Countdown(missing, bindings.inputs)
    background = ThreadPoolExecutor(1)
    try:
        pending: list[Future[None]] = []
        for number, shard in enumerate(plan.shards):
            path = staging.output / shard.name
            if shard.name in kept:
                _check(path, shard, kept[shard.name].digests, options, buffers, progress)
                digests |= kept[shard.name].digests
                continue
            identity = made_from(shard, bindings.inputs)
            file, made = run_shard(
                plan, bindings, number, staging.output, options, buffers, countdown, progress
            )
            require_expected(shard, made, bindings.inputs, buffers)
            # Two shards are open at most: this one, and the one before it on its way to the medium.
            _wait(pending)
            drop_cache = options.low_cpu_mem or options.verify == "disk"
            pending = [background.submit(_sync, file, drop_cache=drop_cache)]
            if options.verify == "disk":
                _wait(pending)
            check = (path, shard, made, options, buffers, progress)
            if isinstance(shard, RestoredPlan):  # one hash, one thread: beside the next shard
                check = (path, shard, made, options, [Buffers()], progress)
                pending.append(background.submit(_check, *check))
            else:
                _check(*check)
            require_unchanged(bindings)
            receipt = Receipt(plan.digest, shard.name, machine(plan), identity, made)
            pending.append(background.submit(_leave, receipt, staging.receipts, [*pending]))
            digests |= made
        _wait(pending)
    finally:
        # An interrupt does not wait for the medium; what was not synced has no receipt.
        background.shutdown(wait=False, cancel_futures=True)
    return digests


def _nbytes_to_do(shard: ShardPlan, options: Options, *, kept: bool) -> int:
    """What filling a shard, reading it back and hashing it goes through."""
    written = 0 if kept else shard.data_nbytes
    read = 0 if options.verify == "no" or isinstance(shard, RestoredPlan) else shard.data_nbytes
    hashed = isinstance(shard, FilePlan | RestoredPlan) and shard.published
    return written + read + (shard.nbytes if hashed else 0)


def _wait(pending: Sequence[Future[None]]) -> None:
    for future in pending:
        future.result()


def _sync(file: fs.PositionedFile, *, drop_cache: bool) -> None:
    file.sync()
    if drop_cache:
        file.drop_cache()


def _leave(receipt: Receipt, directory: Path, before: Sequence[Future[None]]) -> None:
    """A shard that failed to reach the medium, or to be what it must be, has no receipt."""
    _wait(before)
    receipt.write(directory)


def _check(
    path: Path,
    shard: ShardPlan,
    expected: Mapping[str, str],
    options: Options,
    buffers: Sequence[Buffers],
    progress: Progress,
) -> None:
    """Read a shard back and compare; with the release's own hashes, however little is verified.

    Raises: VerificationFailed, DecodedWrong.
    """
    if options.verify != "no" and not isinstance(shard, RestoredPlan):  # whose hash says it all
        found = read_back(path, shard, buffers, progress.advance)
        differing = [name for name in expected if found.get(name) != expected[name]]
        if differing:
            reason = f"{len(differing)} tensor(s)"
            raise VerificationFailed(file=path, reason=reason, context=differing)
    if isinstance(shard, FilePlan | RestoredPlan) and shard.published:
        require_published(path, shard, buffers, progress.advance)


def require_unchanged(bindings: Bindings) -> None:
    """Raises: InputChanged, if an input file was written to while the run read it."""
    for checkpoint in bindings.inputs.values():
        for path in checkpoint.changed_files():
            raise InputChanged(file=path)


def _complete(
    plan: Plan,
    bindings: Bindings,
    staging: Staging,
    digests: Mapping[str, str],
    buffers: Sequence[Buffers],
    progress: Progress,
) -> Manifest:
    """Write sidecars and index, then, when all of them are durable, the manifest."""
    small = {each.name: bindings.sidecars[each.name] for each in plan.sidecars}
    for name, content in (small | _index(plan)).items():
        fs.write_durably(staging.output / name, content)
    fs.sync_directory(staging.output)
    if plan.makes_files:
        digests = digest_decoded(staging.output, buffers, progress)
    manifest = _manifest(plan, digests, staging.output)
    fs.write_durably(staging.output / MANIFEST, manifest.to_json())
    fs.sync_directory(staging.output)
    return manifest


def _manifest(plan: Plan, digests: Mapping[str, str], directory: Path) -> Manifest:
    """The manifest of the whole output in `directory`; `digests` are those of its tensors."""
    if plan.makes_files:
        return manifest_of_files(plan, digests, directory)
    return manifest_of(plan, digests, _index(plan))


def _index(plan: Plan) -> dict[str, bytes]:
    """The content of the index by its name; nothing where one file holds all."""
    given = any(each.name == INDEX for each in plan.sidecars)
    if len(plan.shards) == 1 or plan.makes_files or given:
        return {}
    weight_map = {t.output.name: s.name for s in plan.shards for t in s.tensors}
    nbytes = sum(shard.data_nbytes for shard in plan.shards)
    return {INDEX: build_index(weight_map, nbytes, sum(t.output.numel for t in plan.tensors))}

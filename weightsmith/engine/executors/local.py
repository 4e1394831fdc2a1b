"""Shards made by the threads of this process: one is filled while the one before is synced."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.engine.background import Background
from weightsmith.engine.executors.executor import Executor, Work
from weightsmith.engine.expected import blamed, require_expected, require_file
from weightsmith.engine.finite import FiniteWatch
from weightsmith.engine.inputs import Countdown
from weightsmith.engine.options import Bindings, Options, Verify
from weightsmith.engine.output import require_same
from weightsmith.engine.read_back import Follower, Front, Trail
from weightsmith.engine.receipts import Receipt, machine, made_from
from weightsmith.engine.shard import begin, fill, read_back, reopen
from weightsmith.engine.spans import Advance, Buffers
from weightsmith.plan.model import Plan, ShardPlan
from weightsmith.progress import Progress


class Threads:
    """The executor that makes all shards here, in the order of the plan."""

    anywhere = False

    def make(self, work: Work, numbers: Sequence[int]) -> Mapping[str, Receipt]:
        """As `Executor.make`; memory: a few spans a worker."""
        return make_shards(work, numbers, work.staging.output)


THREADS: Final[Executor] = Threads()


def make_shards(
    work: Work,
    numbers: Sequence[int],
    directory: Path,
    settle: Callable[[str], None] | None = None,
) -> dict[str, Receipt]:
    """Make shards in `directory`, in this order; returns their receipts by name.

    `settle` is told a file's name when it is durable in `directory`, and puts it where it belongs
    before its receipt is left there.
    Raises: as `Executor.make`.
    """
    plan, inputs, options = work.plan, work.bindings.inputs, work.options
    receipts: dict[str, Receipt] = {}
    countdown = Countdown([plan.shards[number] for number in numbers], inputs)
    with Background() as background:
        for number in numbers:
            shard = plan.shards[number]
            identity, watch = made_from(shard, inputs), FiniteWatch()
            file, made = run_shard(
                plan,
                work.bindings,
                number,
                directory,
                options,
                work.buffers,
                countdown,
                work.progress,
                watch,
            )
            receipt = Receipt(
                plan.digest,
                shard.name,
                shard.nbytes,
                machine(plan),
                identity,
                made,
                nonfinite=watch.found,
            )
            work.require_finite(receipt)
            background.sync(file, work.staging, nbytes=shard.nbytes, drop_cache=True)
            if options.verify == "disk":
                # Only what is synced leaves the page cache to the last page, and on overlayfs
                # at all.
                background.wait()
                require_whole(directory, shard, made, options.verify, work.buffers, work.progress)
            receipts[shard.name] = receipt
            work.require_unchanged(receipts)
            before = None if settle is None else partial(settle, shard.name)
            background.leave(receipt, work.staging.receipts, before)
        background.wait()
    return receipts


def run_shard(
    plan: Plan,
    bindings: Bindings,
    number: int,
    output: Path,
    options: Options,
    buffers: Sequence[Buffers],
    countdown: Countdown,
    progress: Progress,
    watch: FiniteWatch,
) -> tuple[fs.PositionedFile, dict[str, str]]:
    """Write shard `number` into the directory `output`, not yet synced; pure and idempotent.

    Returns the open file and the digests of its tensors by name. What was written is checked: it
    is read back here, or hashed as it is written where the release gives a hash of the file;
    where the medium is to say what it holds, that is left until it is synced. `watch` sees what is
    made, and may find values that are no numbers.
    Raises: VerificationFailed; WrongBase, DeltaInvalid.
    """
    shard, verify, advance = plan.shards[number], options.verify, progress.advance
    file = begin(shard, output)
    filled = partial(
        fill,
        shard,
        bindings.inputs,
        file,
        buffers,
        advance,
        countdown,
        look=watch.look,
        drop_cache=options.low_cpu_mem,
    )
    if shard.published and verify != "disk":
        # A thread of its own: the one in the background may still be bringing the shard before
        # this one to the medium, and those that write would wait for the hash.
        with ThreadPoolExecutor(1) as pool, Front(len(shard.header)) as front:
            follower = Follower(file, shard.nbytes, front)
            held = pool.submit(_hold, follower, shard, advance)
            with blamed(shard.tensors, bindings.inputs, buffers):
                digests = filled(follower.follow)
    else:
        held = None
        trail = Trail(file, advance, reads=verify == "cache")
        with blamed(shard.tensors, bindings.inputs, buffers):
            digests = filled(trail.follow)
        trail.finish(buffers)
    if verify == "cache" or shard.published:
        reopen(file.path, shard)
    require_expected(shard, digests, bindings.inputs, buffers)
    if held is not None:
        held.result()
    return file, digests


def _hold(follower: Follower, shard: ShardPlan, advance: Advance) -> None:
    """Hold a file that is being filled against its release's hashes.

    Raises: as `require_file`.
    """
    digests = {each.output.name: each.digest for each in shard.tensors if each.digest}
    with follower:
        require_file(follower, shard, digests, Buffers(), advance)


def require_whole(
    directory: Path,
    shard: ShardPlan,
    digests: Mapping[str, str],
    verify: Verify,
    buffers: Sequence[Buffers],
    progress: Progress,
) -> None:
    """Hold a file that is whole and synced against its release's hashes, or its tensors' digests.

    Raises: VerificationFailed; DeltaInvalid, DecodedWrong.
    """
    path, advance = directory / shard.name, progress.advance
    file = fs.open_for_reading(path)
    if verify == "disk":
        file.drop_cache()
    if shard.published:
        require_file(file, shard, digests, buffers[0], advance)
    elif verify != "no":
        require_same(path, read_back(path, shard, buffers, advance), digests)


def nbytes_to_do(shard: ShardPlan, verify: Verify, *, kept: bool) -> int:
    """What filling a shard and reading it back goes through; the hash of a whole file, where the
    release gives one, says it all, however little is to be verified.
    """
    written = 0 if kept else shard.data_nbytes
    if shard.published:
        return written + shard.nbytes
    return written + (shard.data_nbytes if verify != "no" else 0)

"""Staging that many processes write at once, on any machines that see it.

    .<target>.weightsmith-partial/
        plan.json     the same bytes, whoever writes it first
        shares/       a folder for each process at work, with the file that it is making
        receipts/     one for each finished file
        output/       finished files only; `sealed/` while the whole is published

Nothing here takes a lock, and nothing relies on what another process was seen to do. A process
makes each file in a folder that is nobody else's, syncs it there, and renames it into `output`;
then it leaves the receipt. Two that make the same file make the same bytes, so it does not matter
whose rename comes last, and one that is killed leaves a folder which nobody reads.

That is what NFS keeps too. A rename is one operation of the server's. What was synced is on the
server, and whoever opens the file afterwards is given it (close-to-open). Locks are not relied on:
`flock` may hold on one client alone. Looking is not relied on either: a client may believe for as
long as it caches attributes, a minute by default, that a new file is not there yet. Who misses
another's receipt so makes a file again, or says that it is missing; what is published is decided
by reading the receipts and files themselves (`engine.share.finish`).
"""

import contextlib
import glob
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from weightsmith import fs
from weightsmith.engine.receipts import read_receipt
from weightsmith.engine.staging import Staging
from weightsmith.errors import StagingBusy, StagingOfAnotherPlan, TargetUnwritable
from weightsmith.plan.model import Plan, ShardPlan


class SharedStaging(Staging):
    """The staging directory of a target whose files many processes make, all by one plan."""

    def __init__(self, target: Path, plan: Plan) -> None:
        """Name the places; nothing is touched."""
        super().__init__(target)
        self._plan = plan

    def join(self, sources: Iterable[Path]) -> None:
        """Take part in the plan; whoever comes first makes the directory.

        Nobody may look into it who may not look into all of `sources`.
        Raises: StagingOfAnotherPlan; TargetUnwritable.
        """
        allowed = [source.stat().st_mode for source in sources]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # What lies there without a plan is a replaced target, half deleted: a run would clear
            # it away, alone. Asked before the plan, which is written before `output` is made.
            is_left = self.output.is_dir() or self.sealed.is_dir()
            digest = self.plan_digest()
            if digest is None and is_left:
                raise self.of_another_plan("it has no plan")
            if digest is None:
                fs.restrict(self.path, allowed)
                fs.write_durably(self.plan_path, self._plan.to_bytes())
                fs.sync_directory(self.path)
                digest = self.plan_digest()
            # Of two plans that come at the same moment, one finds the other's: the last to rename
            # stays. Receipts name their plan, so that nothing of the two is ever mixed.
            if digest != self._plan.digest:
                raise self.of_another_plan("it belongs to another plan")
            self.unseal()
            for place in (self.output, self.receipts, self.shares):
                place.mkdir(exist_ok=True)
            fs.restrict(self.output, allowed)
        except OSError as error:
            raise TargetUnwritable(where=self.path, reason=error.strerror) from error

    @contextlib.contextmanager
    def own_folder(self) -> Iterator[Path]:
        """A folder that is nobody else's, for files in the making; it is gone afterwards.

        Raises: StagingBusy, for whatever goes wrong once another run has taken, or published, what
        lies here; TargetUnwritable, for what the system refuses.
        """
        folder = self.shares / secrets.token_hex(8)
        try:
            folder.mkdir()
            yield folder
        except Exception as error:
            if not folder.is_dir():
                raise StagingBusy(target=self.target) from error
            if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
                raise TargetUnwritable(where=self.path.parent, reason=error) from error
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def settle(self, folder: Path, shard: ShardPlan) -> None:
        """Give a file that is durable in `folder` its place in the output, before its receipt.

        Where another process has finished the same file meanwhile, that one stays: somebody may be
        publishing it.
        """
        made = folder / shard.name
        if self.is_finished(shard):
            made.unlink()
        else:
            fs.rename(made, self.output / shard.name)
            fs.sync_directory(self.output)

    def of_another_plan(self, reason: str, context: Sequence[str] = ()) -> StagingOfAnotherPlan:
        """The error for what lies here and does not match; no process of many may discard it."""
        hint = f"if nobody needs it any more, delete {self.path}"
        return StagingOfAnotherPlan(staging=self.path, reason=reason, context=context, hint=hint)

    def is_finished(self, shard: ShardPlan) -> bool:
        """Whether a file has its receipt and its size; whether they hold is asked by who
        finishes.
        """
        receipt = read_receipt(self.receipts, shard)
        if receipt is None or receipt.plan_digest != self._plan.digest:
            return False
        with contextlib.suppress(OSError):
            return (self.output / shard.name).stat().st_size == shard.nbytes
        return False

    def discard_begun(self, shard: ShardPlan) -> None:
        """Delete what processes that were killed left of a file that is finished now.

        One that is still at work on it finds its folder empty, and the file finished.
        """
        for path in self.shares.glob(f"*/{glob.escape(shard.name)}"):
            with contextlib.suppress(OSError):
                path.unlink()
                path.parent.rmdir()

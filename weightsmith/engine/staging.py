"""Staging: the unfinished output beside the target, and the one rename that publishes it.

    .<target>.weightsmith-partial/
        lock          held while a run is at work
        plan.json     the plan that this staging belongs to
        receipts/     one for each finished shard
        inputs/       files of the hub while they are read, of a run that streams them
        output/       what will be the target, whole or not at all
    .<target>.weightsmith-old     the replaced target, on systems that cannot exchange two names

`output` has no file of ours in it but those to publish, so that publishing is one rename.
Everything here may be met half done by a later run: see `Staging.recover`.
"""

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from weightsmith import fs
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.errors import (
    InTheWay,
    StagingBusy,
    StagingOfAnotherPlan,
    TargetExists,
    TargetUnwritable,
)
from weightsmith.plan.model import Plan


class Staging:
    """The staging directory of one target."""

    def __init__(self, target: Path) -> None:
        """Name the places; nothing is touched."""
        self.target = target
        self.path = target.with_name(f".{target.name}.weightsmith-partial")
        self.output = self.path / "output"
        self.receipts = self.path / "receipts"
        self.inputs = self.path / "inputs"
        self._plan_path = self.path / "plan.json"
        self._old = target.with_name(f".{target.name}.weightsmith-old")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the staging directory, so that a second run of the same target stops and says so.

        The lock saves work and is not what correctness rests on; where the system has none, two
        runs of one plan write the same bytes.
        Raises: StagingBusy; TargetUnwritable, also for what the system refuses while it is held.
        """
        try:
            if self.path.is_symlink():
                raise TargetUnwritable(where=self.path, reason="it is a link")
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / "lock").open("ab")
        except FileExistsError as error:
            raise TargetUnwritable(where=self.path, reason="it is no directory") from error
        except OSError as error:
            raise TargetUnwritable(where=self.path.parent, reason=error.strerror) from error
        with lock:
            try:
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock.fileno()).st_nlink == 0:
                    # The run that held it has just ended, and deleted it with all of staging.
                    raise StagingBusy(target=self.target)
            except ImportError:
                pass
            except BlockingIOError as error:
                raise StagingBusy(target=self.target) from error
            except OSError:
                pass  # a file system without locks
            try:
                yield
            except BrokenPipeError:
                raise  # whoever listened to the progress has gone; nothing of the target's
            except OSError as error:
                raise TargetUnwritable(where=self.path.parent, reason=error) from error

    def recover(self) -> None:
        """Finish or undo what a run left that was stopped while it published.

        Raises: StagingBusy, if a run is publishing right now.
        """
        if not os.path.lexists(self._old):
            return
        with self.held():
            if os.path.lexists(self.target):
                _delete(self._old)
            else:
                fs.rename(self._old, self.target)
                fs.sync_directory(self.target.parent)

    def claim(self, plan: Plan, *, restart: bool) -> None:
        """Make the staging directory this plan's, keeping what an earlier run of it finished.

        Raises: StagingOfAnotherPlan, if it holds another plan's work and `restart` is not given.
        """
        stored = self._plan_path.read_bytes() if self._plan_path.is_file() else None
        ours = plan.to_json().encode()
        if stored is not None and stored != ours and not restart:
            raise StagingOfAnotherPlan(staging=self.path, reason="it belongs to another plan")
        afresh = stored is None or restart
        if afresh:
            # Without a plan beside it, what lies there may be a replaced target, half deleted.
            self._clear()
        for place in (self.output, self.receipts):
            if place.is_symlink() or not place.is_dir():
                _delete(place)
            place.mkdir(exist_ok=not afresh)
        if afresh:
            fs.write_durably(self._plan_path, ours)
            fs.sync_directory(self.path)

    def keep(self, names: Collection[str]) -> None:
        """Delete all but the finished files of these names, and their receipts.

        What is half made, and what others put there, is made again and never written through.
        """
        for place, kept in (
            (self.receipts, {f"{name}.json" for name in names}),
            (self.output, names),
        ):
            for each in place.iterdir():
                if each.name not in kept:
                    _delete(each)

    def plan_digest(self) -> str | None:
        """The digest of the plan whose work lies in staging, or None where there is none."""
        try:
            return bytes_digest(self._plan_path.read_bytes())
        except OSError:
            return None

    def output_nbytes(self) -> int:
        """Bytes of the unfinished output; 0 once it is published, which may be right now."""
        with contextlib.suppress(OSError), os.scandir(self.output) as entries:
            return sum(entry.stat().st_size for entry in entries if entry.is_file())
        return 0

    def publish(self, *, overwrite: bool) -> None:
        """Give the finished output its final name, by one rename or exchange.

        Raises: TargetExists, if the name was taken meanwhile; nothing is replaced then.
        """
        if overwrite and os.path.lexists(self.target):
            # From here on `output` may be the replaced target, which no run may continue.
            self._plan_path.unlink()
            if not fs.exchange(self.output, self.target):
                fs.rename(self.target, self._old)
                fs.rename(self.output, self.target)
        else:
            with contextlib.suppress(OSError):
                self.target.rmdir()  # if it is there and empty; Windows renames onto nothing
            try:
                os.rename(self.output, self.target)  # noqa: PTH104  (never replaces files)
            except OSError as error:
                raise TargetExists(target=self.target, reason=error.strerror) from error
            fs.on_durable_step()
        fs.sync_directory(self.target.parent)
        self._remove()
        _delete(self._old)

    def discard_leftovers(self, plan: Plan) -> None:
        """Delete what a run of `plan` left that was stopped after it had published.

        Another plan's work stays, and so does what a run is busy with.
        """
        if self.path.is_dir() and self.plan_digest() in {None, plan.digest}:
            with contextlib.suppress(InTheWay), self.held():
                self._remove()

    def _clear(self) -> None:
        _delete(self._plan_path)
        _delete(self.output)
        _delete(self.receipts)

    def _remove(self) -> None:
        self._clear()
        _delete(self.path)


def is_vacant(target: Path) -> bool:
    """Whether nothing, or an empty directory, has the target's name."""
    if not os.path.lexists(target):
        return True
    try:
        with os.scandir(target) as entries:
            return not target.is_symlink() and next(entries, None) is None
    except OSError:
        return False


def _delete(path: Path) -> None:
    """Delete a directory with all in it, a file or a link, as far as the system lets us."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()

"""Staging: the unfinished output beside the target, and the one rename that publishes it.

    .<target>.weightsmith-partial/
        lock          held while a run is at work, and names it
        plan.json     the plan that this staging belongs to
        receipts/     one for each finished shard
        inputs/       files of the hub while they are read, of a run that streams them
        shares/       files in the making, where several processes make them (`shared_staging`)
        output/       what will be the target, whole or not at all
        sealed/       the same, once it is finished: it is checked there, and gets its name
        discarded-*   what is being deleted
    .<target>.weightsmith-old     the replaced target, on systems that cannot exchange two names

`output` has no file of ours in it but those to publish, so that publishing is one rename.
Everything here may be met half done by a later run: see `Staging.recover` and `Staging.claim`.

Where a file system has no locks, or grants each to everybody, two runs may work here at once, and
neither may publish what the other changed. So a finished output is renamed to `sealed` first: the
other run writes and deletes under `output`, and no longer reaches it. For the same reason a
directory is renamed before it is deleted: deleting keeps a tree open, and would go on in it under
its new name.
"""

import contextlib
import os
import secrets
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.engine.staging_lock import ALONE, REMOVED, StagingLock
from weightsmith.errors import (
    InTheWay,
    SourceUnreadable,
    StagingBusy,
    StagingOfAnotherPlan,
    TargetExists,
    VerificationFailed,
    WeightsmithError,
)
from weightsmith.plan.model import Plan

_CHANGED: Final = "another program changed it after it was written"


class Staging:
    """The staging directory of one target."""

    def __init__(self, target: Path) -> None:
        """Name the places; nothing is touched."""
        self.target = target
        self.path = target.with_name(f".{target.name}.weightsmith-partial")
        self.output = self.path / "output"
        self.sealed = self.path / "sealed"
        self.receipts = self.path / "receipts"
        self.inputs = self.path / "inputs"
        self.shares = self.path / "shares"
        self.plan_path = self.path / "plan.json"
        self._lock = StagingLock(self.path, target)
        self._old = target.with_name(f".{target.name}.weightsmith-old")
        self._synced: dict[str, fs.Identity] = {}

    def held(self) -> contextlib.AbstractContextManager[None]:
        """Hold the staging directory, so that a second run of the same target stops and says so.

        Raises: StagingBusy; TargetUnwritable, also for what the system refuses while it is held.
        """
        return self._lock.held()

    def recover(self) -> None:
        """Finish or undo what a run left that was stopped while it published.

        Raises: StagingBusy, if a run is publishing right now.
        """
        if not os.path.lexists(self._old):
            return
        with self.held():
            if os.path.lexists(self.target):
                fs.delete(self._old)
            else:
                fs.rename(self._old, self.target)
                fs.sync_directory(self.target.parent)

    def claim(self, plan: Plan, *, restart: bool, sources: Iterable[Path] = ()) -> None:
        """Make the staging directory this plan's, keeping what an earlier run of it finished.

        Nobody may look into it, or into what is published, who may not look into all of `sources`.
        Raises: StagingOfAnotherPlan, if it holds another plan's work, and SourceUnreadable, if one
        cannot tell; not where `restart` is given.
        """
        stored = None if restart else fs.read_if_file(self.plan_path)
        ours = plan.to_bytes()
        if stored is not None and stored != ours:
            raise StagingOfAnotherPlan(staging=self.path, reason="it belongs to another plan")
        afresh = stored is None
        allowed = [source.stat().st_mode for source in sources]
        fs.restrict(self.path, allowed)
        if afresh:
            # Without a plan beside it, what lies there may be a replaced target, half deleted.
            self._clear()
        self.unseal()
        for place in (self.output, self.receipts):
            if place.is_symlink() or not place.is_dir():
                self._discard(place)
            place.mkdir(exist_ok=not afresh)
        fs.restrict(self.output, allowed)
        if afresh:
            fs.write_durably(self.plan_path, ours)
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
                    self._discard(each)

    def unseal(self) -> None:
        """Take the finished output back, if a run was stopped before it had its name."""
        try:
            self.sealed.rename(self.output)
        except FileNotFoundError:
            return
        except OSError:
            # Another run, which was overtaken, has begun a second output. What is in its place is
            # deleted once the sealed one stands there, for that run may be doing the same.
            aside = self._aside()
            with contextlib.suppress(FileNotFoundError):
                self.output.rename(aside)
            try:
                self.sealed.rename(self.output)
            except FileNotFoundError:
                with contextlib.suppress(OSError):
                    aside.rename(self.output)
            fs.delete(aside)

    def plan_digest(self) -> str | None:
        """The digest of the plan whose work lies in staging, or None where there is none.

        Raises: SourceUnreadable.
        """
        stored = fs.read_if_file(self.plan_path)
        return None if stored is None else bytes_digest(stored)

    def holds(self, plan: Plan) -> bool:
        """Whether this plan's work lies in staging, as far as one can read that."""
        with contextlib.suppress(SourceUnreadable):
            return self.plan_digest() == plan.digest
        return False

    def finished_count(self) -> int:
        """How many files of the unfinished output have a receipt; 0 once it is published."""
        with contextlib.suppress(OSError), os.scandir(self.receipts) as entries:
            return sum(entry.name.endswith(".json") for entry in entries)
        return 0

    def output_nbytes(self) -> int:
        """Bytes of the unfinished output; 0 once it is published, which may be right now."""
        with contextlib.suppress(OSError), os.scandir(self.output) as entries:
            return sum(entry.stat().st_size for entry in entries if entry.is_file())
        return 0

    def write(
        self, name: str, content: bytes | Iterable[bytes | memoryview], *, mode: int = 0o666
    ) -> None:
        """Make a small file of the output, durable once its directory is synced.

        Its permissions are `mode` but for the umask; `name` may have a subfolder before it.
        """
        path = self.output / name
        if path.parent != self.output:
            path.parent.mkdir(parents=True, exist_ok=True)
        written, found = fs.write_durably(path, content, mode=mode), path.lstat()
        # The rename gave it another time of change; all else must be as when it was synced.
        if fs.identity_of(found)[:4] != fs.identity_of(written)[:4]:
            raise VerificationFailed(file=path, reason=_CHANGED, hint=ALONE)
        self.synced(name, found)

    def synced(self, name: str, state: os.stat_result) -> None:
        """A file of the output is durable: whatever is published under its name must be it."""
        self._synced[name] = fs.identity_of(state)

    def publish(self, *, overwrite: bool) -> None:
        """Give the finished output its final name, by one rename or exchange.

        Raises: VerificationFailed, if a file is not what was synced; TargetExists, if the name was
        taken meanwhile. Nothing is replaced then.
        """
        if self.output.is_symlink():
            reason = "another program put a link in the place of its directory"
            raise VerificationFailed(file=self.output, reason=reason, hint=ALONE)
        fs.rename(self.output, self.sealed)  # fails where another run's is sealed
        try:
            self._require_as_synced()
            self._name(overwrite=overwrite)
        except (OSError, WeightsmithError):
            self.unseal()
            raise
        fs.sync_directory(self.target.parent)
        self._remove()
        fs.delete(self._old)

    def discard_leftovers(self, plan: Plan) -> None:
        """Delete what a run of `plan` left that was stopped after it had published.

        Another plan's work stays, and so does what a run is busy with.
        """
        with contextlib.suppress(InTheWay, SourceUnreadable):
            if self.path.is_dir() and self.plan_digest() in {None, plan.digest}:
                with self.held():
                    self._remove()

    def _name(self, *, overwrite: bool) -> None:
        if overwrite and os.path.lexists(self.target):
            # From here on `sealed` may be the replaced target, which no run may continue.
            self.plan_path.unlink()
            if not fs.exchange(self.sealed, self.target):
                fs.rename(self.target, self._old)
                try:
                    fs.rename(self.sealed, self.target)
                except (OSError, WeightsmithError):
                    fs.rename(self._old, self.target)
                    raise
            return
        with contextlib.suppress(OSError):
            self.target.rmdir()  # if it is there and empty; Windows renames onto nothing
        try:
            os.rename(self.sealed, self.target)  # noqa: PTH104  (never replaces files)
        except FileNotFoundError as error:
            raise StagingBusy(target=self.target) from error
        except OSError as error:
            raise TargetExists(target=self.target, reason=error.strerror) from error
        fs.on_durable_step()

    def _require_as_synced(self) -> None:
        """Raises: VerificationFailed, if the output is not exactly the files that were synced."""
        found = {}
        for directory, folders, names in os.walk(self.sealed):
            links = [name for name in folders if os.path.islink(os.path.join(directory, name))]  # noqa: PTH114, PTH118
            for path in (Path(directory, name) for name in (*names, *links)):
                name = path.relative_to(self.sealed).as_posix()
                found[name] = fs.identity_of(path.lstat())
        for name in sorted(found.keys() | self._synced.keys()):
            if name not in found:
                reason = REMOVED
            elif name not in self._synced:
                reason = "another program put it there"
            elif found[name] != self._synced[name]:
                reason = _CHANGED
            else:
                continue
            raise VerificationFailed(file=self.output / name, reason=reason, hint=ALONE)

    def _clear(self) -> None:
        self._discard(self.plan_path)
        for place in (self.output, self.sealed, self.receipts, self.shares):
            self._discard(place)
        for place in self.path.glob("discarded-*"):
            fs.delete(place)

    def _remove(self) -> None:
        self._clear()
        with contextlib.suppress(OSError):  # what another run has made here since stays
            left = [each for each in self.path.iterdir() if each != self._lock.path]
            for each in (*left, self._lock.path):
                self._discard(each)
            self.path.rmdir()

    def _aside(self) -> Path:
        """A new name for what is being deleted."""
        return self.path / f"discarded-{secrets.token_hex(8)}"

    def _discard(self, path: Path) -> None:
        """Delete a file, or a directory out of the reach of a run that is about to publish it."""
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):  # Windows moves nothing that somebody holds open
                path = path.rename(self._aside())
        fs.delete(path)


def is_vacant(target: Path) -> bool:
    """Whether nothing, or an empty directory, has the target's name."""
    if not os.path.lexists(target):
        return True
    try:
        with os.scandir(target) as entries:
            return not target.is_symlink() and next(entries, None) is None
    except OSError:
        return False

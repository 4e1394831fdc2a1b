"""The lock of a staging directory: a file in it, which names the run that is at work there."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from weightsmith import fs
from weightsmith.errors import (
    SourceNotFound,
    SourceUnreadable,
    StagingBusy,
    TargetUnwritable,
    VerificationFailed,
    WeightsmithError,
)

ALONE: Final = "let nothing else work in that directory, and run the same command again"
REMOVED: Final = "it was removed after it was written"
_TRIES: Final = 10
"""How often in a row another run may end just when we take its lock."""


class StagingLock:
    """The lock of one target's staging directory."""

    def __init__(self, directory: Path, target: Path) -> None:
        """Name the places; nothing is touched."""
        self.path = directory / "lock"
        self._directory = directory
        self._target = target

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the staging directory, so that a second run of the same target stops and says so.

        The lock saves work and is not what correctness rests on: where the file system has none,
        of two runs the one that finds the other's files in its place stops, and the other goes on.
        Raises: StagingBusy; TargetUnwritable, also for what the system refuses while it is held;
        VerificationFailed, if a file that was made here is gone.
        """
        with self._opened() as lock:
            run = secrets.token_bytes(16)
            is_marked = _mark(lock, run)
            try:
                yield
            except BrokenPipeError:
                raise  # whoever listened to the progress has gone; nothing of the target's
            except (OSError, WeightsmithError) as error:
                if is_marked and not self._is_held_by(run):
                    raise StagingBusy(target=self._target) from error
                if (
                    isinstance(error, SourceNotFound)
                    and self._directory in Path(error.values["source"]).parents
                ):
                    raise VerificationFailed(
                        file=error.values["source"], reason=REMOVED, hint=ALONE
                    ) from error
                if isinstance(error, WeightsmithError):
                    raise
                hint = fs.MORE_FILES if error.errno in fs.TOO_MANY_FILES else None
                where = self._directory.parent
                raise TargetUnwritable(where=where, reason=error, hint=hint) from error

    @contextlib.contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        """The lock file, locked where the file system has locks.

        Raises: StagingBusy, TargetUnwritable.
        """
        for _ in range(_TRIES):
            self._make_directory()
            try:
                lock = os.fdopen(fs.open_lock(self.path), "ab")
            except FileNotFoundError:
                continue  # the run that held it has just ended, and deleted all of staging
            except OSError as error:
                if _is_no_file(self.path):
                    fs.delete(self.path)  # as all else that others put into staging
                    continue
                raise TargetUnwritable(where=self.path, reason=error.strerror) from error
            with lock:
                try:
                    is_sure = _lock(lock)
                except BlockingIOError as error:
                    raise StagingBusy(target=self._target) from error
                if is_sure and os.fstat(lock.fileno()).st_nlink == 0:
                    continue  # likewise: it is no lock any more, and others may hold a new one
                if os.fstat(lock.fileno()).st_nlink > 1:
                    fs.delete(self.path)  # somebody keeps a link to it, and is not written to
                    continue
                yield lock
                return
        raise StagingBusy(target=self._target)

    def _make_directory(self) -> None:
        try:
            if self._directory.is_symlink():
                raise TargetUnwritable(where=self._directory, reason="it is a link")
            self._directory.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise TargetUnwritable(where=self._directory, reason="it is no directory") from error
        except OSError as error:
            raise TargetUnwritable(where=self._directory.parent, reason=error.strerror) from error

    def _is_held_by(self, run: bytes) -> bool:
        """Whether no other run has taken, or published, what lies here since `run` took it."""
        try:
            return fs.read_if_file(self.path) == run
        except SourceUnreadable:
            return True  # what went wrong is told then, and not that another run is there


def _lock(lock: IO[bytes]) -> bool:
    """Lock a file for this process alone; False where the system or file system has no locks.

    Raises: BlockingIOError, if another process holds it.
    """
    try:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except (ImportError, OSError):
        return False
    return True


def _mark(lock: IO[bytes], run: bytes) -> bool:
    """Say in the lock file who holds it, for file systems that have no locks, or give each to
    everybody; False where there is no room to say it.
    """
    try:
        os.ftruncate(lock.fileno(), 0)
        return os.write(lock.fileno(), run) == len(run)
    except OSError:
        return False


def _is_no_file(path: Path) -> bool:
    """Whether something else than a file lies there, a link too."""
    return os.path.lexists(path) and (path.is_symlink() or not path.is_file())

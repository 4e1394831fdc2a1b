"""What is done beside the workers, in order: files brought to the medium, receipts left."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock
from typing import Any, Self, TypeVar

from weightsmith import fs
from weightsmith.engine.receipts import Receipt
from weightsmith.engine.staging import Staging
from weightsmith.engine.staging_lock import ALONE
from weightsmith.errors import VerificationFailed

Done = TypeVar("Done")


class Background:
    """One thread beside the workers that brings finished files to the medium, in order."""

    def __init__(self) -> None:
        """Nothing to do yet."""
        self.stopped = Event()
        """Set when nothing of it is wanted any more."""
        self._pool = ThreadPoolExecutor(1)
        self._pending: list[Future[Any]] = []
        self._leaving = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Who holds staging next is alone in it. An interrupt does not wait for the medium all the
        # same: what was not synced has no receipt, and gets none any more.
        self.stopped.set()
        with self._leaving:
            pass
        interrupted = kind is not None and not issubclass(kind, Exception)
        self._pool.shutdown(wait=not interrupted, cancel_futures=True)

    def submit(self, work: Callable[[], Done]) -> Future[Done]:
        """Do this after all that was submitted before."""
        future = self._pool.submit(work)
        self._pending.append(future)
        return future

    def wait(self) -> None:
        """Until all is done; raises what was met."""
        for each in self._pending:
            each.result()
        self._pending.clear()

    def sync(
        self, file: fs.PositionedFile, staging: Staging, *, nbytes: int, drop_cache: bool
    ) -> None:
        """Bring a file of `nbytes` to the medium, once the one before has arrived: two are open at
        most.

        From then on it is what `staging` must find under its name when it publishes. The work
        raises VerificationFailed if it has another size by then.
        """

        def sync() -> None:
            file.sync()
            state = file.stat()
            if state.st_size != nbytes:
                reason = f"it has {state.st_size} bytes"
                raise VerificationFailed(file=file.path, reason=reason, hint=ALONE)
            staging.synced(file.path.name, state)
            if drop_cache:
                file.drop_cache()

        self.wait()
        self.submit(sync)

    def leave(
        self, receipt: Receipt, directory: Path, settle: Callable[[], None] | None = None
    ) -> None:
        """Leave a receipt, unless the file failed to reach the medium or to be what it must be;
        `settle` is called just before.
        """
        before = [*self._pending]

        def leave() -> None:
            for each in before:
                each.result()
            with self._leaving:
                if not self.stopped.is_set():
                    if settle is not None:
                        settle()
                    receipt.write(directory)

        self.submit(leave)

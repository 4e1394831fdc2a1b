"""Threads that pull tasks from one iterator; reading, arithmetic and hashing all release the
GIL.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

Task = TypeVar("Task")


def run_tasks(tasks: Iterable[Task], workers: Sequence[Callable[[Task], None]]) -> None:
    """Give each task to the next free worker; each worker has a thread of its own.

    The first error, or an interrupt of the calling thread, stops all workers after the task in
    hand, and is raised when they have stopped.
    Raises: MemoryError, if the system grants no thread; what a task raises.
    """
    pending = iter(tasks)
    lock = threading.Lock()
    stop = threading.Event()
    errors: list[BaseException] = []

    def work(worker: Callable[[Task], None]) -> None:
        try:
            while not stop.is_set():
                with lock:
                    task = next(pending, None)
                if task is None:
                    return
                worker(task)
        except BaseException as error:  # noqa: BLE001  (raised again in the caller)
            errors.append(error)
            stop.set()

    threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in workers]
    try:
        for thread in threads:
            try:
                thread.start()
            except RuntimeError as error:  # out of memory, or more than a container may have
                raise MemoryError(str(error)) from error
        for thread in threads:
            thread.join()
    except BaseException:
        stop.set()
        for thread in threads:
            if thread.is_alive():  # one that begins only now finds that it is to stop
                thread.join()
        raise
    if errors:
        raise errors[0]

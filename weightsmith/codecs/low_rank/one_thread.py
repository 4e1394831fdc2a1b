"""BLAS with one thread, while workers of ours look for factors."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np  # noqa: F401  (whose BLAS is to be there when it is limited)
from threadpoolctl import threadpool_limits

_LOCK: Final = threading.Lock()
_users = 0
_limits: Any = None


@contextmanager
def one_thread() -> Iterator[None]:
    """Let every BLAS of the process use one thread until the last who asked for it is done.

    Several workers call BLAS at once, and its threads would wait for each other: on a busy machine
    a system of 144 equations took 300 times as long. The number of threads would also change the
    last bits of what is found. For many short calls, hold this once around all of them: starting
    and stopping threads takes longer than such a call.
    """
    global _users, _limits  # noqa: PLW0603  (the limit is the process's, and so are these)
    with _LOCK:
        if not _users:
            _limits = threadpool_limits(1, user_api="blas")
        _users += 1
    try:
        yield
    finally:
        with _LOCK:
            _users -= 1
            if not _users:
                _limits.restore_original_limits()

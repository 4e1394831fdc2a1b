"""Start the process that forks the ones that tests ask for, and end it with this one."""

import atexit
import os
import socket
import subprocess
import sys
from collections.abc import Mapping

from tests.support.paths import ROOT


def start(module: str, extra_env: Mapping[str, str] | None = None) -> socket.socket:
    """Our end of a socket, whose other end ``python -m MODULE DESCRIPTOR`` serves."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-m", module, str(theirs.fileno())],
        cwd=ROOT,
        env={**os.environ, **(extra_env or {})},
        pass_fds=[theirs.fileno()],
    )
    theirs.close()

    def end() -> None:
        ours.close()  # it serves until nobody can ask it any more
        process.wait()

    atexit.register(end)
    return ours

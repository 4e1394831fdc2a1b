"""The process of a smoke test, forked instead of started afresh.

It runs the same code and says the same, without importing torch and transformers anew, which takes
most of the time of a small model. A process that has imported them and computes nothing forks.

    python -m tests.support.forked DESCRIPTOR       serve on this socket
"""

import functools
import gc
import importlib
import json
import os
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from tests.support import fork_server
from weightsmith.smoke import runner

_IMPORTED = (
    "accelerate",
    "transformers.generation.streamers",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "weightsmith.smoke.child",
)


def start(scratch: Path) -> runner.Process:
    """As `runner.start`, to put in its place."""
    server = _server()

    def fork(asked: int, answers: int) -> int:
        message = json.dumps({"said": str(scratch / runner.SAID)}).encode()
        socket.send_fds(server, [message], [asked, answers])
        return int(server.recv(100))

    def wait(pid: int) -> int:
        server.sendall(json.dumps({"wait": pid}).encode())
        return int(server.recv(100))

    return _started(fork, wait)


def start_here(scratch: Path) -> runner.Process:
    """The same from this very process, with all that a test has changed in it."""

    def fork(asked: int, answers: int) -> int:
        pid = _fork()
        if pid == 0:
            _be_the_child(asked, answers, str(scratch / runner.SAID))
        return pid

    return _started(fork, lambda pid: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _started(fork: Callable[[int, int], int], wait_for: Callable[[int], int]) -> runner.Process:
    to_child, from_us = os.pipe()
    to_us, from_child = os.pipe()
    pid = fork(to_child, from_child)
    os.close(to_child)
    os.close(from_child)
    wait = functools.cache(lambda: wait_for(pid))

    def kill() -> None:
        if not wait.cache_info().currsize:
            os.kill(pid, signal.SIGKILL)

    return runner.Process(os.fdopen(from_us, "wb"), os.fdopen(to_us, "rb"), kill, wait)


@functools.cache
def _server() -> socket.socket:
    return fork_server.start("tests.support.forked")


def _serve(asked: socket.socket) -> None:
    for name in _IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a child would touch, and so copy, all the memory that it shares
    os.cpu_count = lambda: 1  # so small a model gains nothing from two
    while True:
        message, descriptors, *_ = socket.recv_fds(asked, 10_000, 2)
        if not message:
            return
        request: dict[str, Any] = json.loads(message)
        if "wait" in request:
            status = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
            asked.sendall(str(status).encode())
            continue
        pid = _fork()
        if pid == 0:
            asked.close()
            _be_the_child(descriptors[0], descriptors[1], request["said"])
        for each in descriptors:
            os.close(each)
        asked.sendall(str(pid).encode())


def _fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the other threads are idle
        return os.fork()


def _be_the_child(asked: int, answers: int, said: str) -> NoReturn:
    try:
        os.dup2(asked, 0)
        os.dup2(answers, 1)
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT, 0o600), 2)
        os.closerange(3, 1000)  # no end of ours of any pipe
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(fd, mode, encoding="utf-8", closefd=False)
            for fd, mode in ((0, "r"), (1, "w"), (2, "w"))
        )
        importlib.import_module("weightsmith.smoke.child").main()
    finally:
        os._exit(0)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))

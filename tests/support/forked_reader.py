"""The process that reads a tokenizer, forked instead of started afresh.

It runs the same code and says the same, without importing transformers anew, which takes most of
the time. A process that has imported it, without torch as the original does, forks.

    python -m tests.support.forked_reader DESCRIPTOR       serve on this socket
"""

import functools
import gc
import importlib
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support import fork_server
from weightsmith.smoke import read_tokenizer, tokenizer
from weightsmith.smoke.closed import closed_environment

_IMPORTED = (
    "tokenizers",
    "transformers",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.tokenization_llama",
)

_run_afresh = tokenizer.run_reader


def run_reader(python: str, asked: str) -> "subprocess.CompletedProcess[str]":
    """As `tokenizer.run_reader`, to put in its place; another Python is started as ever."""
    if python != sys.executable:
        return _run_afresh(python, asked)
    server = _server()
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as question,
        tempfile.TemporaryFile("w+", encoding="utf-8") as out,
        tempfile.TemporaryFile("w+", encoding="utf-8") as err,
    ):
        question.write(asked)
        question.seek(0)
        here = bytes(Path.cwd())  # folders may be named from here
        socket.send_fds(server, [here], [each.fileno() for each in (question, out, err)])
        status = int(server.recv(100))
        for each in (out, err):
            each.seek(0)
        return subprocess.CompletedProcess([], status, out.read(), err.read())


@functools.cache
def _server() -> socket.socket:
    return fork_server.start("tests.support.forked_reader", closed_environment())


def _serve(asked: socket.socket) -> None:
    read_tokenizer.leave_out_packages()
    for name in _IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a child would touch, and so copy, all the memory that it shares
    while True:
        message, descriptors, *_ = socket.recv_fds(asked, 10_000, 3)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            asked.close()
            os.chdir(message)
            _answer(*descriptors)
        for each in descriptors:
            os.close(each)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        asked.sendall(str(status).encode())


def _answer(*descriptors: int) -> None:
    for number, each in enumerate(descriptors):
        os.dup2(each, number)
    status = 1
    try:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        read_tokenizer.main()
        status = 0
    except BaseException:  # noqa: BLE001  (as the interpreter ends)
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))

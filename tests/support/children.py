"""Runs in forked children of one process that has imported everything, so that each takes
milliseconds: children that die at a chosen instant, meet a full disk, or lack what other systems
lack.

    python -m tests.support.children     one JSON request a line in, one JSON answer a line out
"""

import errno
import gc
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from tests.support.paths import ROOT, VECTORS

KILLED: Final = 9
"""Exit status of a child that was told to die."""
NOBODY: Final = 65534
_HANGS_AFTER_S: Final = 240


@dataclass(frozen=True, slots=True)
class Answer:
    """How a child ended."""

    exit: int
    """The process's: 0, or `KILLED`."""
    steps: int = 0
    """Durable steps made."""
    writes: int = 0
    """Calls of `write_from` made."""
    error: str = ""
    """Reference of the known error that stopped the run."""
    exit_code: int = 0
    """What the command would have exited with."""
    message: str = ""
    unknown: str = ""
    """An error that is none of weightsmith's own: a defect."""
    kept: int = -1
    already_done: bool = False


class Children:
    """The process that forks."""

    def __init__(self) -> None:
        """Start it; the first answer waits until torch is imported there."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.children"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def apply(self, base: Path, delta: Path, target: Path, **request: Any) -> Answer:
        """Apply a delta in a child.

        `plan` and `options` are keywords of `plan_apply_delta` and `Options`. `die_at_step`,
        `die_at_write`: end hard after so many. `absent`: names that `os` is to lack, and
        ``fcntl``. `no_exchange`: as with a C library that lacks it. `fail_sync`: number of
        the sync that finds the medium broken, from 1. `file_size_limit`: in bytes. `uid`: to run
        as.
        """
        return self._ask("apply", base, delta, target, request)

    def share(self, plan: Path, partition: str, **request: Any) -> Answer:
        """Make a share of a saved plan in a child; else as `apply`."""
        return self._ask("share", plan, Path(), Path(), {"partition": partition, **request})

    def make(self, base: Path, target: Path, delta: Path, **request: Any) -> Answer:
        """Make a delta in a child; `plan` holds keywords of `plan_make_delta`, else as `apply`."""
        return self._ask("make", base, delta, target, request)

    def _ask(
        self, verb: str, base: Path, delta: Path, target: Path, request: dict[str, Any]
    ) -> Answer:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError
        paths = {"base": str(base), "delta": str(delta), "target": str(target)}
        request = {"verb": verb, **request, **paths}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Answer(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=_HANGS_AFTER_S)


def serve() -> None:
    """Fork a child for each request."""
    from weightsmith.ops.apply_delta import apply_delta
    from weightsmith.ops.make_delta import make_delta

    # One run here imports all that a child would import anew, or, as somebody else, could not.
    vector = VECTORS / "vicuna_v1_1"
    with tempfile.TemporaryDirectory() as home:
        for _ in range(2):
            apply_delta(vector / "base", vector / "delta", target=Path(home) / "out")
        make_delta(vector / "base", Path(home) / "out", Path(home) / "delta")
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            thread.join()
    gc.collect()
    gc.freeze()  # a collection in a child would touch, and so copy, all the memory that it shares
    for line in sys.stdin:
        readable, writable = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.alarm(_HANGS_AFTER_S)
            answer = _run(json.loads(line))
            os.write(writable, json.dumps(answer).encode())
            os._exit(0)
        os.close(writable)
        with os.fdopen(readable, "rb") as pipe:
            answer = json.loads(pipe.read() or b"{}")
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps({"exit": status, **answer}), flush=True)


def _run(request: dict[str, Any]) -> dict[str, Any]:
    from weightsmith.engine.options import Options
    from weightsmith.engine.run import Outcome
    from weightsmith.errors import WeightsmithError
    from weightsmith.ops.apply_delta import apply_delta
    from weightsmith.ops.make_delta import MadeDelta, make_delta
    from weightsmith.ops.run_plan import run_share

    counts = _prepare(request)
    options = Options(**{"workers": 2, **request.get("options", {})})
    base, delta, target = request["base"], request["delta"], request["target"]
    kwargs: dict[str, Any] = request.get("plan", {})
    outcome: Outcome | MadeDelta
    try:
        if request["verb"] == "share":
            made = run_share(base, request["partition"])
            return {**counts, "kept": len(made.kept), "already_done": made.published}
        if request["verb"] == "make":
            outcome = make_delta(base, target, delta, options=options, **kwargs)
        else:
            kwargs = {"repair": False, **kwargs}
            outcome = apply_delta(base, delta, target=target, options=options, **kwargs)
    except WeightsmithError as error:
        told = {"error": error.reference, "exit_code": error.exit_code, "message": str(error)}
        return {**counts, **told}
    except Exception as error:  # noqa: BLE001  (told to the test, which fails)
        return {**counts, "unknown": repr(error)}
    return {**counts, "kept": outcome.kept, "already_done": outcome.already_done}


def _prepare(request: dict[str, Any]) -> dict[str, int]:
    """Make this process what the request asks; returns counts that go on counting."""
    from weightsmith import fs

    counts = {"steps": 0, "writes": 0}

    def count(what: str, last: int | None) -> None:
        counts[what] += 1
        if counts[what] == last:
            os._exit(KILLED)

    write = fs.PositionedFile.write_from

    def write_and_count(self: fs.PositionedFile, offset: int, buffer: memoryview) -> None:
        write(self, offset, buffer)
        count("writes", request.get("die_at_write"))

    fs.on_durable_step = lambda: count("steps", request.get("die_at_step"))
    fs.PositionedFile.write_from = write_and_count  # type: ignore[method-assign]
    if request.get("no_exchange"):
        fs._libc_function = lambda _: None  # type: ignore[assignment]
    # A process that ends loses nothing that it wrote; only a power cut would, and fsync takes long.
    fs._sync_descriptor = _failing(request.get("fail_sync", 0))  # type: ignore[assignment]
    for name in request.get("absent", ()):
        if name == "fcntl":
            sys.modules[name] = None  # type: ignore[assignment]
        else:
            delattr(os, name)
    if "O_NONBLOCK" in request.get("absent", ()):
        shutil._use_fd_functions = False  # type: ignore[attr-defined]  # as where that is absent
    if limit := request.get("file_size_limit"):
        sys.dont_write_bytecode = True  # cut short, it would be kept
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if uid := request.get("uid"):
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    return counts


def _failing(number: int) -> Callable[[int], None]:
    """A sync that does nothing, but fails at call `number`; at none, if it is 0."""
    calls = 0

    def sync(fd: int) -> None:
        nonlocal calls
        os.fstat(fd)
        calls += 1
        if calls == number:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    return sync


def main(args: Sequence[str]) -> NoReturn:
    """Serve until stdin closes."""
    if args:
        sys.exit(__doc__)
    serve()
    sys.exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])

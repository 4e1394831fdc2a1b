"""The process that forks one for each command line, and the one that is forked.

    python -m tests.torture.server HOME     one JSON request a line in, one JSON answer a line out

It has imported everything, so that a command takes milliseconds; the shim is loaded into it by
``LD_PRELOAD`` where there is one.
"""

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

import weightsmith
from tests.support.loopback import refuse_far_connections
from tests.torture.shim import Counts, Trouble, arm, shift_clock
from weightsmith import fs
from weightsmith.hub import fetch

HANGS_AFTER_S: Final = 60
"""Long beyond anything that a busy machine makes of a second."""
_IMPORTED: Final = (
    *("huggingface_hub.hf_api", "huggingface_hub.file_download", "huggingface_hub.lfs", "torch"),
    *("numkong", "numpy.typing", "safetensors", "sentencepiece", "tokenizers", "zstandard"),
    *("safetensors.torch", "threadpoolctl", "xxhash", "regex", "ml_dtypes"),
)


def serve(home: Path) -> None:
    """Fork a child for each request, and say how it ended."""
    for each in pkgutil.walk_packages(weightsmith.__path__, "weightsmith."):
        if not each.name.endswith("__main__"):
            importlib.import_module(each.name)
    for name in _IMPORTED:
        importlib.import_module(name)
    fetch.FIRST_WAIT_S = 0.001
    sleep = time.sleep
    time.sleep = lambda seconds: sleep(float(seconds) / 1000)  # of the hub library's patience
    sys.addaudithook(refuse_far_connections)
    counts = Counts(home / "counts")
    gc.collect()
    gc.freeze()  # a collection in a child would touch, and so copy, all the memory that it shares
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        counts.clear()
        pid = os.fork()
        if pid == 0:
            _be(request, home, counts)
        status, hung = _wait(pid, request.get("signals", ()), sleep)
        print(json.dumps({"exit": status, "hung": hung, "counts": counts.read()}), flush=True)


def _wait(
    pid: int, signals: list[tuple[float, int]], sleep: Callable[[float], None]
) -> tuple[int, bool]:
    """The exit status of a child that is sent signals at these times, and whether it hung."""
    start, left = time.monotonic(), list(signals)
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        elapsed = time.monotonic() - start
        if found:
            _end_group(pid)
            return os.waitstatus_to_exitcode(status), False
        if elapsed > HANGS_AFTER_S:
            _end_group(pid)
            os.waitpid(pid, 0)
            return -signal.SIGKILL, True
        if left and elapsed >= left[0][0]:
            os.kill(pid, left.pop(0)[1])
        sleep(0.001)


def _end_group(pid: int) -> None:
    """Whatever the command started ends with it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _be(request: dict[str, Any], home: Path, counts: Counts) -> NoReturn:
    """Become ``weightsmith`` with the arguments of a request, and end as it does."""
    try:
        os.setsid()
        os.chdir(request["cwd"])
        os.environ.update(request.get("env", {}))
        for name in request.get("unset", ()):
            os.environ.pop(name, None)
        os.umask(request.get("umask", 0o022))
        tempfile.tempdir = None
        for name, limit in request.get("limits", {}).items():
            number = getattr(resource, name)
            resource.setrlimit(number, (limit, resource.getrlimit(number)[1]))
        said = os.open(home / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(fd, mode, encoding="utf-8", closefd=False)
            for fd, mode in ((0, "r"), (1, "w"), (2, "w"))
        )
        for number in request.get("closed", ()):
            os.close(number)
            setattr(sys, ("stdin", "stdout", "stderr")[number], None)
        fs.on_durable_step = _step(counts, request.get("kill_at_step", 0))
        if request.get("act"):
            fs.on_durable_step = _acting(counts, *request["act"])
        if request["shim"]:
            trouble = request.get("trouble")
            log = request.get("log")
            arm(home / "world", counts, log and Path(log), trouble and Trouble(**trouble))
            shift_clock(request.get("clock", 0))
        sys.argv = ["weightsmith", *request["line"]]
        importlib.import_module("weightsmith.cli.main").main()
    except SystemExit as done:
        os._exit(done.code if isinstance(done.code, int) else 1)
    except BaseException as error:  # noqa: BLE001  (a defect of this very file)
        print(f"torture: {error!r}", file=sys.__stderr__, flush=True)
    finally:
        os._exit(99)


def _step(counts: Counts, last: int) -> Callable[[], None]:
    def count() -> None:
        if counts.step() == last:
            os.kill(os.getpid(), signal.SIGKILL)

    return count


def _acting(counts: Counts, number: int, name: str) -> Callable[[], None]:
    """At a durable step somebody else does something (`neighbours.py`)."""
    act = importlib.import_module("tests.torture.neighbours").ACTS[name]

    def count() -> None:
        if counts.step() == number:
            act()

    return count


if __name__ == "__main__":
    serve(Path(sys.argv[1]))

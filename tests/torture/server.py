"""The process that forks one for each command line, and the one that is forked.

    python -m tests.torture.server HOME     one JSON request a line in, one JSON answer a line out

It has imported everything, so that a command takes milliseconds; the shim is loaded into it by
``LD_PRELOAD`` where there is one.
"""

import contextlib
import errno
import fcntl
import functools
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

import numkong

import weightsmith
from tests.support.loopback import refuse_far_connections
from tests.torture import acts, mounts
from tests.torture.shim import Counts, Trouble, arm, shift_clock
from tests.torture.turns import Turns, take_turns
from weightsmith import fs
from weightsmith.codecs import sums
from weightsmith.codecs.exact import kernel
from weightsmith.hub import fetch

HANGS_AFTER_S: Final = 60
"""Long beyond anything that a busy machine makes of a second."""
_POLITE: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WAITS_S: Final = 2
"""How long a run is stopped for another one's sake, which may wait for a lock that it holds."""
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
        turns = Turns(request["schedule"]) if "schedule" in request else None
        run = _started(request, home, counts, (turns, 0) if turns else None)
        twin, order = None, ""
        if turns is not None:
            more = {**request, "said": "said-twin"}
            twin = _started(more, home, counts, (turns, 1))
            order = turns.play()
        elif "twin" in request:
            if "stop_at_step" in request:
                run.wait(sleep, until_stopped=True)
            twin = _started({**request, "stop_at_step": 0, "said": "said-twin"}, home, counts)
            twin.wait(sleep, at_most_s=WAITS_S if run.is_stopped else 0.0)
            run.go_on()
        run.wait(sleep)
        answer: dict[str, Any] = {"exit": run.exit, "hung": run.hung, "counts": counts.read()}
        if twin is not None:
            twin.wait(sleep)
            answer |= {"twin": twin.exit, "hung": run.hung or twin.hung, "order": order}
        print(json.dumps(answer), flush=True)


class _Run:
    """A forked child."""

    def __init__(self, pid: int, signals: list[tuple[float, int]]) -> None:
        """It is sent signals, at these times after its start."""
        self.exit: int | None = None
        self.hung = False
        self.is_stopped = False
        self._pid = pid
        self._start = time.monotonic()
        self._signals = [*signals]

    def wait(
        self,
        sleep: Callable[[float], None],
        *,
        until_stopped: bool = False,
        at_most_s: float | None = None,
    ) -> None:
        """Until it has ended, or stopped itself, or so long."""
        begin = time.monotonic()
        while self.exit is None and not (until_stopped and self.is_stopped):
            found, status = os.waitpid(self._pid, os.WNOHANG | os.WUNTRACED)
            now = time.monotonic()
            if found and os.WIFSTOPPED(status):
                self.is_stopped = True
            elif found:
                self.exit = os.waitstatus_to_exitcode(status)
                _end_group(self._pid)
            elif at_most_s is not None and now - begin > at_most_s:
                return
            elif now - self._start > HANGS_AFTER_S:
                self.hung = True
                _end_group(self._pid)
            elif self._signals and now - self._start >= self._signals[0][0]:
                os.kill(self._pid, self._signals.pop(0)[1])
            sleep(0.001)

    def go_on(self) -> None:
        """After it has stopped itself."""
        if self.exit is None and self.is_stopped:
            os.kill(self._pid, signal.SIGCONT)


def _started(
    request: dict[str, Any], home: Path, counts: Counts, turns: tuple[Turns, int] | None = None
) -> _Run:
    signal.pthread_sigmask(signal.SIG_BLOCK, _POLITE)  # until there is a command that can answer
    pid = os.fork()
    if pid == 0:
        _be(request, home, counts, turns)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _POLITE)
    return _Run(pid, request.get("signals", []))


def _end_group(pid: int) -> None:
    """Whatever the command started ends with it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _be(
    request: dict[str, Any], home: Path, counts: Counts, turns: tuple[Turns, int] | None
) -> NoReturn:
    """Become ``weightsmith`` with the arguments of a request, and end as it does."""
    try:
        os.setsid()
        os.chdir(request["cwd"])
        os.environ.update(request.get("env", {}))
        for name in request.get("unset", ()):
            os.environ.pop(name, None)
        os.umask(request.get("umask", 0o022))
        for source, place in request.get("binds", ()):
            mounts.bind_privately(Path(source), Path(place))
        time.tzset()
        tempfile.tempdir = None
        _take_kernel(request.get("kernel"))
        said = os.open(
            home / request.get("said", "said"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600
        )
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
        fs.on_durable_step = _at_step(counts, *_deed(request))
        if request.get("twin") in {"none", "granted"}:
            fcntl.flock = _no_lock if request["twin"] == "none" else _granted
        if turns is not None:
            fs.on_durable_step = take_turns(turns[0].player(turns[1]), fcntl.flock)
        if request["shim"]:
            trouble = request.get("trouble")
            log = request.get("log")
            arm(
                Path(request["cwd"]).parent,
                counts,
                log and Path(log),
                trouble and Trouble(**trouble),
            )
            shift_clock(request.get("clock", 0))
        for name, limit in request.get("limits", {}).items():
            number = getattr(resource, name)
            resource.setrlimit(number, (limit, resource.getrlimit(number)[1]))
        sys.argv = ["weightsmith", *request["line"]]
        main = importlib.import_module("weightsmith.cli.main").main
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _POLITE)
        main()
    except KeyboardInterrupt:
        os._exit(130)
    except SystemExit as done:
        os._exit(done.code if isinstance(done.code, int) else 1)
    except BaseException as error:  # noqa: BLE001  (a defect of this very file)
        print(f"torture: {error!r}", file=sys.__stderr__, flush=True)
    finally:
        os._exit(99)


def _deed(request: dict[str, Any]) -> tuple[int, Callable[[], object]]:
    """At which durable step something happens, and what."""
    if act := request.get("act"):
        number, name, *more = act
        return number, functools.partial(acts.ACTS[name], *more)
    ending = signal.SIGSTOP if "stop_at_step" in request else signal.SIGKILL
    number = request.get("stop_at_step", request.get("kill_at_step", 0))
    return number, functools.partial(os.kill, os.getpid(), ending)


def _at_step(counts: Counts, number: int, deed: Callable[[], object]) -> Callable[[], None]:
    def count() -> None:
        step = counts.step()
        if step == number - 1:
            acts.look()
        if step == number:
            deed()

    return count


def _take_kernel(name: str | None) -> None:
    """Let no faster path be taken than this one."""
    if name is None:
        return
    found, paths = kernel.find(), ("plain", "avx2", "avx512")
    if found is not None and name in paths:
        found = kernel.Kernel(found.module, min(found.simd, paths.index(name)))
    slower = None if name == "none" else found
    kernel.find = lambda: slower  # type: ignore[assignment]
    if name in {"none", "plain"}:  # sums have one path, of AVX2
        sums.find = lambda: None  # type: ignore[assignment]
    fast = {"plain": "", "none": "", "avx2": "haswell"}.get(name)
    for capability, has in numkong.get_capabilities().items():
        if fast is not None and has and capability not in {"serial", fast}:
            numkong.disable_capability(capability)


def _no_lock(*_: object) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def _granted(*_: object) -> None:
    """What some network file systems say to everybody."""


if __name__ == "__main__":
    serve(Path(sys.argv[1]))

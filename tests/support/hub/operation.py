"""Run one operation of the library in a process of its own, and tell what came of it.

Most are forked from a process that has imported what they need, which saves most of the time. The
hub library reads its environment when it is imported: a client with an environment of its own
imports it anew.
"""

import contextlib
import functools
import gc
import importlib
import io
import json
import os
import pkgutil
import resource
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import weightsmith
from tests.support.loopback import refuse_far_connections
from weightsmith import fs
from weightsmith.errors import WeightsmithError
from weightsmith.hub import fetch

_IMPORTED = (
    *("huggingface_hub.hf_api", "huggingface_hub.file_download", "huggingface_hub.lfs"),
    *("numkong", "numpy.typing", "safetensors", "sentencepiece", "tokenizers", "zstandard"),
)
"""What operations import when they get there, beside all of weightsmith."""


class Notes:
    """A listener that keeps everything."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.phases: list[list[Any]] = []
        self._lock = threading.Lock()

    def begin(self, phase: str, total_nbytes: int) -> None:
        self.phases.append([phase, total_nbytes, 0])

    def advance(self, nbytes: int) -> None:
        with self._lock:
            self.phases[-1][2] += nbytes

    def note(self, text: str) -> None:
        self.said.append(text)


def outcome_of(task: dict[str, Any]) -> dict[str, Any]:
    """Plan, and unless the task is only to plan, do it; or run a command line."""
    if task["op"] == "cli":
        return said_by(*task["args"], cwd=task["options"]["cwd"])
    notes = Notes()
    try:
        if task["op"] == "download":
            module = importlib.import_module("weightsmith.ops.download")
            plan = module.plan_download(*task["args"], **task["options"], note=notes.note)
            value = plan if task["dry"] else module.carry_out(plan, notes)
        else:
            module = importlib.import_module("weightsmith.ops.clean_cache")
            plan = module.plan_clean_cache(*task["args"], **task["options"])
            value = plan if task["dry"] else module.carry_out(plan)
    except WeightsmithError as error:
        return {
            "reference": error.reference,
            "code": error.exit_code,
            "message": str(error),
            "context": list(error.context),
            "hint": error.hint_text,
            "notes": notes.said,
            "peak_nbytes": peak_memory(),
        }
    known = {"code": 0, "notes": notes.said, "phases": notes.phases, "peak_nbytes": peak_memory()}
    return {**value.to_document(), **known}


def peak_memory() -> int:
    """The most that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def said_by(*args: str, cwd: str) -> dict[str, Any]:
    """What a command line says, and its exit code."""
    out, err = io.BytesIO(), io.BytesIO()
    os.chdir(cwd)
    with (
        contextlib.redirect_stdout(io.TextIOWrapper(out, encoding="utf-8", write_through=True)),
        contextlib.redirect_stderr(io.TextIOWrapper(err, encoding="utf-8", write_through=True)),
    ):
        code = importlib.import_module("weightsmith.cli.main").run(args)
        return {"code": code, "out": out.getvalue().decode(), "err": err.getvalue().decode()}


def prepare() -> None:
    """Be impatient, and reach nothing but this machine."""
    fetch.FIRST_WAIT_S = 0.001
    wait = time.sleep
    time.sleep = lambda seconds: wait(float(seconds) / 1000)
    sys.addaudithook(refuse_far_connections)


def die_at(steps: Iterator[int], last: int) -> None:
    """End the process at its n-th durable step, as a power cut would."""
    if next(steps) == last:
        os._exit(9)


def do(task: dict[str, Any]) -> None:
    """Write the outcome to the task's file; what else is said goes beside it."""
    out = Path(task["out"])
    if limit := task["file_limit"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if task["dies_at"]:
        fs.on_durable_step = functools.partial(die_at, iter(range(1, 1000)), task["dies_at"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    said = os.open(f"{out}.said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(said, 1)
    os.dup2(said, 2)
    out.write_text(json.dumps(outcome_of(task)))


def begin_anew(env: dict[str, str]) -> None:
    """Be as in a fresh process with this environment."""
    ours = dict(os.environ)
    os.environ.clear()
    os.environ.update(env)
    other = {name for name in ours.keys() | env if ours.get(name) != env.get(name)}
    if {name for name in other if name.startswith("HF_")} <= {"HF_HOME", "HF_TOKEN"}:
        # Nobody holds a copy of what follows from the one; the other is read when it is needed.
        importlib.reload(sys.modules["huggingface_hub.constants"])
        return
    for name in [*sys.modules]:
        if name.partition(".")[0] == "huggingface_hub":
            del sys.modules[name]


def serve() -> None:
    """Fork a client for each line of stdin, a task; print its id, and when it is done.

    A download that fails comes first: it prepares what each client would else prepare anew.
    """
    for each in pkgutil.walk_packages(weightsmith.__path__, "weightsmith."):
        if not each.name.endswith("__main__"):
            importlib.import_module(each.name)
    for name in _IMPORTED:
        importlib.import_module(name)
    outcome_of({"op": "download", "args": ["no/model"], "options": {}, "dry": True})
    importlib.import_module("huggingface_hub").close_session()
    gc.collect()
    gc.freeze()  # a collection in a child would touch, and so copy, all the memory that it shares
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            task = json.loads(line)
            os.environ.update(task["env"])
            if task.get("whole_env"):
                begin_anew(task["whole_env"])
            try:
                do(task)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(0)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("done", flush=True)


if __name__ == "__main__":
    prepare()
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        try:
            do(json.loads(sys.argv[1]))
        except KeyboardInterrupt:
            os._exit(130)  # as the command does: threads that hear nothing of it are left

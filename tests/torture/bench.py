"""A workbench: a world of files, a hub, and a process that runs weightsmith in that world.

HOME/wörld 世界/inputs/COMMAND/    what a command reads; nothing of it may ever change
HOME/wörld 世界/area/              its working directory, HOME, TMPDIR and cache: all it may change
HOME/pristine/COMMAND/              the area as it is before the command
HOME/counts, said, log              of the process: calls, what it said, what a medium was told
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.hub.client import usual_env
from tests.support.hub.server import Hub
from tests.support.paths import ROOT

TOKEN: Final = "hf_torture"
WHO: Final = "me"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command line ended."""

    exit: int
    """As a shell has it; negative where a signal ended the process."""
    hung: bool
    counts: Mapping[str, int]
    said: str
    twin: int | None = None
    """How the other of two runs ended."""
    order: str = ""
    """Which of two runs made each of their points, where they took turns."""


class Bench:
    """One world with its process; used by one thread at a time."""

    def __init__(self, home: Path, library: Path | None, *, mounts: bool = False) -> None:
        """Start the process; `library` is the shim, if there is one; `mounts`: it may mount."""
        self.mounts = mounts
        self.home = home
        self.world = home / "wörld 世界"
        self.area = self.world / "area"
        self.log = home / "log"
        self.library = library
        for folder in (self.world / "inputs", home / "pristine"):
            folder.mkdir(parents=True)
        self.hub = Hub()
        self._is_ready = False
        preload = {} if library is None else {"LD_PRELOAD": str(library)}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.server", str(home)],
            cwd=ROOT,
            env={**_environment(self), **preload},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, line: Sequence[str], *, env: Mapping[str, str] = {}, **request: Any) -> Ended:
        """Run a command line in the area; `request` as in `server._be`."""
        if self._server.stdin is None or self._server.stdout is None:
            raise RuntimeError
        document = {"line": list(line), "cwd": str(self.area), "env": dict(env), **request}
        document["shim"] = self.library is not None
        if not self.area.exists():
            self.lay_out(None)
        if not self._is_ready:
            self._is_ready = self._server.stdout.readline() == "ready\n"
        self._server.stdin.write(json.dumps(document) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        said = "".join(
            (self.home / name).read_text(errors="replace")
            for name in ("said", "said-twin")
            if name == "said" or "twin" in request
        )
        return Ended(**json.loads(answer), said=said)

    def run_afresh(self, line: Sequence[str], **env: str) -> Ended:
        """Run a command line in a new process, as a user does, with no shim under it."""
        done = subprocess.run(
            [sys.executable, "-m", "weightsmith", *line],
            cwd=self.area,
            env={**_environment(self), **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        return Ended(
            done.returncode, hung=False, counts={}, said=done.stdout.decode(errors="replace")
        )

    def lay_out(self, pristine: Path | None) -> None:
        """Make the area what it was before, or empty."""
        empty(self.area)
        self.fill(pristine)

    def fill(self, pristine: Path | None) -> None:
        """Put into the empty area what it held before."""
        if pristine is not None:
            shutil.copytree(pristine, self.area, symlinks=True, dirs_exist_ok=True)
        for name in ("home", "tmp", "cache"):
            (self.area / name).mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        """End the process and the hub."""
        self._server.communicate()
        self.hub.__exit__()


def empty(folder: Path) -> None:
    """Delete all in a folder, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in folder.iterdir():
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()


def _environment(bench: Bench) -> dict[str, str]:
    area = bench.area
    theirs = usual_env(bench.hub).items()
    return {
        **{name: said for name, said in theirs if not name.startswith(("WEIGHTSMITH_", "LC_"))},
        "HOME": str(area / "home"),
        "TMPDIR": str(area / "tmp"),
        "HF_HOME": str(area / "cache"),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "NO_COLOR": "1",
        "COLUMNS": "80",
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }

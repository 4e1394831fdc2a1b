"""Clients of the hub on loopback, each operation in a process of its own."""

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.hub.server import Hub
from tests.support.paths import ROOT

Server = subprocess.Popen[str]


@dataclass
class Client:
    """Somebody with a cache of their own."""

    hub: Hub
    home: Path
    server: Server | None = None
    """A process that forks clients; where there is none, each is a fresh one."""
    dies_at: int = 0
    """The durable step at which the process of an operation ends, if any."""
    file_limit: int = 0
    """Bytes that no file of theirs can grow beyond, if any."""
    env: dict[str, str] = field(default_factory=dict)
    """What their environment says beyond the usual."""

    @property
    def cache(self) -> Path:
        """Where the hub library keeps what it fetches."""
        return self.home / "hub"

    @property
    def out(self) -> Path:
        """Where the outcome of an operation goes."""
        return self.home.parent / "outcome.json"

    def task(self, op: str, *args: Any, dry: bool = False, **options: Any) -> dict[str, Any]:
        """What `tests.support.hub.operation` takes."""
        self.out.unlink(missing_ok=True)
        task = {"op": op, "args": args, "options": options, "dry": dry, "out": str(self.out)}
        return {**task, "dies_at": self.dies_at, "file_limit": self.file_limit}

    @property
    def whole_env(self) -> dict[str, str]:
        """Their environment, with a cache of their own."""
        return {**usual_env(self.hub), "HF_HOME": str(self.home), **self.env}

    def start(self, task: dict[str, Any], *, whole_env: dict[str, str] | None = None) -> Server:
        """Begin an operation in a fresh process."""
        command = [sys.executable, "-m", "tests.support.hub.operation", json.dumps(task)]
        return subprocess.Popen(command, cwd=ROOT, env=whole_env or self.whole_env, text=True)

    def run(self, op: str, *args: Any, dry: bool = False, **options: Any) -> dict[str, Any]:
        """Do an operation to its end."""
        if self.server is None or self.env:
            self._end(self.task(op, *args, dry=dry, **options), self.whole_env)
        else:
            self.fork(op, *args, dry=dry, **options)
            self.join()
        assert not (said := Path(f"{self.out}.said").read_text()), said
        outcome: dict[str, Any] = json.loads(self.out.read_text())
        return outcome

    def fork(self, op: str, *args: Any, dry: bool = False, **options: Any) -> int:
        """Begin an operation in a process forked for it; the process's id."""
        return self._fork(self.task(op, *args, dry=dry, **{"cache": str(self.cache), **options}))

    def _fork(self, task: dict[str, Any]) -> int:
        assert self.server
        assert self.server.stdin
        assert self.server.stdout
        print(json.dumps({"env": self.env, **task}), file=self.server.stdin, flush=True)
        return int(self.server.stdout.readline())

    def _end(self, task: dict[str, Any], whole_env: dict[str, str] | None = None) -> None:
        """Do a task to its end, in a process forked for it if that can be."""
        if self.server is None:
            self.start(task, whole_env=whole_env).wait(240)
        else:
            self._fork({**task, "whole_env": whole_env})
            self.join()

    def command(
        self, *args: str, cwd: Path | None = None, whole_env: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """Run a command line in `cwd`, or in the directory beside `home`: its exit code, what it
        says.

        The cache is shared by all who run one without an environment of their own.
        """
        task = self.task("cli", *args, cwd=str(cwd or self.home.parent))
        self._end(task, whole_env)
        outcome: dict[str, Any] = json.loads(self.out.read_text())
        return outcome

    def await_bytes(self, raw: bytes, nbytes: int) -> None:
        """Wait until so much of a large file of `org/model` is here, where no more of it comes."""
        blobs = self.cache / "models--org--model" / "blobs"
        partial = blobs / f"{hashlib.sha256(raw).hexdigest()}.incomplete"
        end = time.monotonic() + 240
        while not partial.exists() or partial.stat().st_size < nbytes:
            assert time.monotonic() < end, f"{partial} does not come"
            time.sleep(0.002)

    def join(self) -> None:
        """Wait until the forked process has ended."""
        assert self.server
        assert self.server.stdout
        assert self.server.stdout.readline() == "done\n"

    def download(self, source: str, **options: Any) -> dict[str, Any]:
        """Download, successfully."""
        outcome = self.run("download", source, **options)
        assert outcome["code"] == 0, outcome
        return outcome


def usual_env(hub: Hub) -> dict[str, str]:
    """An environment in which the hub is `hub`, and nobody is logged in."""
    without = ("HF_", "TRANSFORMERS_", "SSL_CERT_")
    theirs = {name: text for name, text in os.environ.items() if not name.startswith(without)}
    ours = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_TELEMETRY": "1", "no_proxy": "*"}
    # Who is held waits until the test says otherwise, and who is slow is no fault.
    ours |= {"HF_HUB_DOWNLOAD_TIMEOUT": "100", "HF_HUB_ETAG_TIMEOUT": "100"}
    # Reading the system's certificates takes longer than all that is done here without them.
    return {**theirs, **ours, "SSL_CERT_DIR": str(Path(__file__).parent)}

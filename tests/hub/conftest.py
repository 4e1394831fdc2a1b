"""A hub on loopback, and clients of it in processes of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.hub.server import Hub

ROOT = Path(__file__).parents[2]


@dataclass
class Client:
    """Somebody with a cache of their own."""

    hub: Hub
    home: Path
    env: dict[str, str] = field(default_factory=dict)
    """What their environment says beyond the usual."""

    @property
    def cache(self) -> Path:
        """Where the hub library keeps what it fetches."""
        return self.home / "hub"

    def start(self, op: str, *args: Any, dry: bool = False, **options: Any) -> subprocess.Popen[str]:
        """Begin an operation; its outcome will be JSON on stdout."""
        task = {"op": op, "args": args, "options": options, "dry": dry}
        ours = ("HF_", "TRANSFORMERS_")
        theirs = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
        env = {**theirs, "HF_HOME": str(self.home), "HF_ENDPOINT": self.hub.url}
        env |= {"HF_HUB_DISABLE_TELEMETRY": "1", **self.env}
        return subprocess.Popen(
            [sys.executable, "-m", "tests.hub.client", json.dumps(task)],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, op: str, *args: Any, dry: bool = False, **options: Any) -> dict[str, Any]:
        """Do an operation to its end."""
        out, err = self.start(op, *args, dry=dry, **options).communicate(timeout=60)
        assert out, err
        assert not err, err
        outcome: dict[str, Any] = json.loads(out)
        return outcome

    def download(self, source: str, **options: Any) -> dict[str, Any]:
        """Download, successfully."""
        outcome = self.run("download", source, **options)
        assert outcome["code"] == 0, outcome
        return outcome


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub that holds nothing yet."""
    with Hub() as hub:
        yield hub


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    """A client with an empty cache."""
    return Client(hub, tmp_path / "home")

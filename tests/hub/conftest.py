"""A hub on loopback, and clients of it in processes of their own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hub.client import Client, Server, usual_env
from tests.support.hub.server import Hub
from tests.support.paths import ROOT


@pytest.fixture(scope="session")
def running_hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


@pytest.fixture(scope="session")
def forking_server(
    running_hub: Hub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server | None]:
    if not hasattr(os, "fork"):
        yield None
        return
    env = {**usual_env(running_hub), "HF_HOME": str(tmp_path_factory.mktemp("nobody"))}
    command = [sys.executable, "-m", "tests.support.hub.operation", "serve"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdin=pipe, stdout=pipe) as server:
        assert server.stdin
        assert server.stdout
        assert server.stdout.readline() == "ready\n"
        running_hub.forget()
        yield server
        server.stdin.close()


@pytest.fixture
def hub(running_hub: Hub) -> Hub:
    """A hub that holds nothing yet."""
    running_hub.forget()
    return running_hub


@pytest.fixture
def client(hub: Hub, tmp_path: Path, forking_server: Server | None) -> Client:
    """A client with an empty cache."""
    return Client(hub, tmp_path / "home", forking_server)

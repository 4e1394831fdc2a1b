"""Killed in the middle of a download: it goes on, and nothing finished is fetched again."""

import hashlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hub.conftest import Client
from tests.hub.server import Hub
from tests.hub.test_download import files_in, scan_warnings

RANDOM = random.Random(2)
SHARDS = {f"pytorch_model-0000{n}-of-00003.bin": RANDOM.randbytes(4_000_000) for n in (1, 2, 3)}
LAST = "pytorch_model-00003-of-00003.bin"
PIECE = 300_000
BUFFER = 10_000
"""What a killed process may not have written yet of what it has received."""
MODEL = {"config.json": b"{}", "tokenizer.model": b"t" * 900, **SHARDS}


def finished(client: Client) -> set[str]:
    """Names of weight files that stand in a snapshot."""
    return {path.name for path in client.cache.rglob("snapshots/*/*.bin")}


def until(condition: Callable[[], bool]) -> None:
    """Look again and again, for half a minute at most."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def arrived(client: Client, name: str) -> int:
    """Bytes of an unfinished file that are on disk."""
    return arrived_in(client.cache, hashlib.sha256(SHARDS[name]).hexdigest())


def arrived_in(cache: Path, digest: str) -> int:
    """Bytes of an unfinished file in a cache."""
    return sum(path.stat().st_size for path in cache.rglob(f"{digest}.incomplete"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to fork here")
def test_killed_ten_times_it_goes_on_and_ends_with_the_right_bytes(
    hub: Hub, client: Client
) -> None:
    hub.add("org/model", MODEL)
    done_before: set[str] = set()
    for stop in range(10):
        hub.forget_requests()
        # The last shard comes a bit at a time; whatever else is missing is fetched meanwhile.
        hub.fail(f"GET /cdn/*/{LAST}", times=1, hold_after=PIECE)
        process = client.fork("download", "org/model")
        enough = (stop + 1) * (PIECE - BUFFER)
        try:
            until(lambda enough=enough: arrived(client, LAST) > enough)  # type: ignore[misc]
        finally:
            os.kill(process, signal.SIGKILL)
            client.join()
        again = {name for name in done_before if hub.ranges(name)}
        assert not again, "fetched although finished"
        done_before |= finished(client)
        assert scan_warnings(client) == []
    hub.forget_requests()
    outcome = client.download("org/model")
    assert files_in(outcome["folder"]) == MODEL
    assert len(hub.ranges(LAST)) == 1
    assert hub.resumed_at(LAST) > 10 * (PIECE - BUFFER), "what had arrived was asked for again"
    assert not list(client.cache.rglob("*.incomplete"))
    assert scan_warnings(client) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to fork here")
def test_ended_at_any_durable_step_the_cache_is_sound_and_the_next_run_finishes(
    hub: Hub, client: Client
) -> None:
    files = {"config.json": b"{}", "model.safetensors": b"m" * 5000}
    hub.add("org/model", files)
    for step in range(1, 20):
        client.home = client.home.with_name(f"home-{step}")
        client.dies_at = step
        client.fork("download", "org/model")
        client.join()
        if client.out.exists():
            break
        assert scan_warnings(client) == []
        client.dies_at = 0
        assert files_in(client.download("org/model")["folder"]) == files
        assert scan_warnings(client) == []
    assert step == 2 * len(files) + 3 + 1, "each file is synced and named, then the branch noted"


def test_an_interrupt_ends_it_at_once_and_keeps_what_came(hub: Hub, client: Client) -> None:
    hub.add("org/model", MODEL)
    hub.fail(f"GET /cdn/*/{LAST}", times=1, hold_after=2_000_000)
    client.env["HF_HUB_DOWNLOAD_TIMEOUT"] = "1"
    process = client.start(client.task("download", "org/model"))
    until(lambda: arrived(client, LAST) > 2_000_000 - BUFFER)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) != 0
    assert scan_warnings(client) == []
    hub.forget_requests()
    client.env.clear()
    assert files_in(client.download("org/model")["folder"]) == MODEL
    assert len(hub.ranges(LAST)) == 1
    assert hub.resumed_at(LAST) > 2_000_000 - BUFFER


@pytest.mark.skipif(sys.platform == "win32", reason="a lock there is another thing")
def test_two_at_once_fetch_every_file_once(hub: Hub, client: Client) -> None:
    hub.add("org/model", MODEL)
    other = Client(hub, client.home)
    tasks = [client.task("download", "org/model") for _ in range(2)]
    tasks[1]["out"] += ".other"
    processes = [other.start(task) for task in tasks]
    assert [process.wait(60) for process in processes] == [0, 0]
    outcome = client.download("org/model")
    assert files_in(outcome["folder"]) == MODEL
    assert all(len(hub.ranges(name)) == 1 for name in SHARDS)
    assert not list(Path(client.cache).rglob("*.incomplete"))

"""Killed in the middle of a download: it goes on, and nothing finished is fetched again."""

import os
import random
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.hub.client import Client
from tests.support.hub.repositories import files_in, scan_warnings
from tests.support.hub.server import Hub

RANDOM = random.Random(2)
SHARDS = {f"pytorch_model-0000{n}-of-00003.bin": RANDOM.randbytes(4_000_000) for n in (1, 2, 3)}
LAST = "pytorch_model-00003-of-00003.bin"
PIECE = 300_000
MODEL = {"config.json": b"{}", "tokenizer.model": b"t" * 900, **SHARDS}


def finished(client: Client) -> set[str]:
    """Names of weight files that stand in a snapshot."""
    return {path.name for path in client.cache.rglob("snapshots/*/*.bin")}


def kill_at(nbytes: int, hub: Hub, client: Client) -> None:
    """Download, and die when so many bytes of the last shard have arrived."""
    hub.fail(f"GET /cdn/*/{LAST}", hold_at=nbytes)
    process = client.fork("download", "org/model")
    try:
        client.await_bytes(SHARDS[LAST], nbytes)
    finally:
        os.kill(process, signal.SIGKILL)
        client.join()
    hub.settle()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to fork here")
@pytest.mark.parametrize("times", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_many_times_it_goes_on_and_ends_with_the_right_bytes(
    times: int, hub: Hub, client: Client
) -> None:
    hub.add("org/model", MODEL)
    done_before: set[str] = set()
    for stop in range(PIECE, (times + 1) * PIECE, PIECE):
        hub.forget_requests()
        # The last shard comes a bit at a time; whatever else is missing is fetched meanwhile.
        kill_at(stop, hub, client)
        again = {name for name in done_before if hub.ranges(name)}
        assert not again, "fetched although finished"
        done_before |= finished(client)
        assert scan_warnings(client) == []
    hub.forget_requests()
    outcome = client.download("org/model")
    assert files_in(outcome["folder"]) == MODEL
    assert hub.ranges(LAST) == [f"bytes={times * PIECE}-"], "what had arrived was asked for again"
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
        places = {path.name for path in (client.cache / "models--org--model").iterdir()}
        trials = {name for name in places if re.fullmatch(r"tmp\w{8}", name)}  # the library's
        assert places - trials == {"blobs", "refs", "snapshots"}, "something was left"
    assert step == 2 * len(files) + 2 + 1, "each file is synced and named, then the branch noted"


def test_an_interrupt_ends_it_at_once_and_keeps_what_came(hub: Hub, client: Client) -> None:
    hub.add("org/model", MODEL)
    hub.fail(f"GET /cdn/*/{LAST}", hold_at=2_000_000)
    process = client.start(client.task("download", "org/model"))
    client.await_bytes(SHARDS[LAST], 2_000_000)
    process.send_signal(signal.SIGINT)
    assert process.wait(240) == 130
    assert scan_warnings(client) == []
    hub.forget_requests()
    assert files_in(client.download("org/model")["folder"]) == MODEL
    assert hub.ranges(LAST) == ["bytes=2000000-"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes to fork here")
@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_what_had_arrived_and_has_another_name_too_is_left_to_whoever_gave_it(
    link: Callable[[Path, Path], None], hub: Hub, client: Client, tmp_path: Path
) -> None:
    hub.add("org/model", MODEL)
    kill_at(PIECE, hub, client)
    hub.faults.clear()  # whoever begins anew would wait there until the client is tired of it
    partial, theirs = next(client.cache.rglob("*.incomplete")), tmp_path / "theirs"
    partial.rename(theirs)
    link(theirs, partial)
    content = theirs.read_bytes()
    assert files_in(client.download("org/model")["folder"]) == MODEL
    assert theirs.read_bytes() == content


@pytest.mark.sampled(1)
@pytest.mark.skipif(sys.platform == "win32", reason="a lock there is another thing")
@pytest.mark.parametrize("links", ["1", "0"], ids=["copies", "links"])
def test_two_at_once_fetch_every_file_once(hub: Hub, client: Client, links: str) -> None:
    hub.add("org/model", MODEL)
    client.env["HF_HUB_DISABLE_SYMLINKS"] = links
    tasks = [client.task("download", "org/model") for _ in range(2)]
    tasks[1]["out"] += ".other"
    processes = [client.start(task) for task in tasks]
    assert [process.wait(240) for process in processes] == [0, 0]
    outcome = client.download("org/model")
    assert files_in(outcome["folder"]) == MODEL
    assert all(len(hub.ranges(name)) == 1 for name in SHARDS)
    assert not list(Path(client.cache).rglob("*.incomplete"))

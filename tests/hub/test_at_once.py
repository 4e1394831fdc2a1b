"""Threads that want the same file, in an order that only a busy machine brings about."""

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from weightsmith.hub import download, fetch, store
from weightsmith.hub.connection import Connection
from weightsmith.hub.listing import Listing, RepoFile
from weightsmith.hub.places import CachePlace, FolderPlace
from weightsmith.hub.resolve import Resolved
from weightsmith.hub.select import Selection
from weightsmith.progress import SILENCE

RAW = b"weights"
FILE = RepoFile("model.safetensors", len(RAW), hashlib.sha256(RAW).hexdigest())
LISTING = Listing("org/model", "main", "a" * 40, (FILE,))


@pytest.fixture
def connection(tmp_path: Path) -> Connection:
    return Connection("http://127.0.0.1", tmp_path / "cache", offline=False, xet=True)


def test_a_thread_that_begins_when_its_file_was_dropped_fetches_nothing(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    brought: list[str] = []

    def keep(thread: threading.Thread) -> None:
        threads.append(thread)

    def bring(job: fetch.Transfer, file: RepoFile) -> None:
        brought.append(file.name)
        job.place.store(file).write_bytes(RAW)

    cached = CachePlace(connection.cache, LISTING.repo_id, LISTING.commit)
    selection = Selection("safetensors", LISTING.files, ())
    resolved = Resolved("org/model", LISTING, selection, cached, connection, frozenset(), ())
    files = store.HubStore(resolved, tmp_path, SILENCE)
    monkeypatch.setattr(store, "fetch", bring)
    monkeypatch.setattr(threading.Thread, "start", keep)
    files.expect(FILE.name)
    assert files.open(FILE.name).read(0, len(RAW)) == RAW
    files.release(FILE.name)
    (late,) = threads
    late.run()
    assert brought == [FILE.name]
    assert not (tmp_path / FILE.name).exists()
    files.expect(FILE.name)
    threads[1].run()
    assert (tmp_path / FILE.name).exists()


def test_who_wants_a_file_that_another_brings_waits_and_takes_it(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    second_came = threading.Event()
    told: list[int] = []

    def by_library(job: fetch.Transfer, file: RepoFile, **_: Any) -> None:
        calls.append(file.name)
        if len(calls) == 2:
            second_came.set()
        assert not second_came.wait(0.2), "two at once"
        job.place.store(file).write_bytes(RAW)

    monkeypatch.setattr(fetch, "_by_library", by_library)
    place, stop = FolderPlace(tmp_path), threading.Event()
    job = fetch.Transfer(connection, LISTING, place, told.append, lambda _: None, stop)
    threads = [threading.Thread(target=fetch.fetch, args=(job, FILE)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [FILE.name]
    assert told == [len(RAW)]


def test_a_file_that_another_is_copying_to_its_place_is_not_taken_for_damaged(
    connection: Connection,
) -> None:
    """Where links cannot be made, a file stands in its snapshot half copied for a while."""
    place = CachePlace(connection.cache, LISTING.repo_id, LISTING.commit)
    path = place.folder / FILE.name
    for each in (path, place.store(FILE)):
        each.parent.mkdir(parents=True)
    place.store(FILE).write_bytes(RAW)
    path.write_bytes(RAW[:3])
    resolved = Resolved(
        "org/model",
        LISTING,
        Selection("safetensors", LISTING.files, ()),
        place,
        connection,
        frozenset({FILE.name}),
        (),
    )
    notes: list[str] = []
    progress = Heard(notes)
    stop = threading.Event()
    transfer = fetch.Transfer(connection, LISTING, place, lambda _: None, notes.append, stop)
    found: list[download.Downloaded] = []

    def bring() -> None:
        found.append(download.download(resolved, progress))

    with fetch.turn(transfer, FILE):
        second = threading.Thread(target=bring)
        second.start()
        second.join(0.2)
        assert second.is_alive()
        path.write_bytes(RAW)
    second.join()
    assert (found[0].fetched, found[0].kept) == ((), LISTING.files)
    assert notes == []


@dataclass
class Heard:
    """A listener that keeps what is said."""

    notes: list[str]

    def begin(self, phase: str, total_nbytes: int) -> None:
        """Nothing to keep."""

    def advance(self, nbytes: int) -> None:
        """Nothing to keep."""

    def note(self, text: str) -> None:
        self.notes.append(text)

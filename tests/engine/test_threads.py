"""Tasks are done once each by whoever is free, and the first error stops everybody."""

import threading
import time
from collections.abc import Iterator

import pytest

from weightsmith.engine.executors.threads import run_tasks


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_every_task_is_done_once(workers: int) -> None:
    done: list[int] = []
    run_tasks(iter(range(500)), [done.append] * workers)
    assert sorted(done) == list(range(500))


def test_each_worker_is_one_thread() -> None:
    """Its buffers are its own."""
    seen: list[set[int]] = [set() for _ in range(4)]
    gate = threading.Barrier(4)

    def worker(own: set[int]) -> None:
        own.add(threading.get_ident())

    def first_waits(own: set[int], task: int) -> None:
        if task < 4:
            gate.wait(10)  # so that all four take part
        worker(own)

    run_tasks(range(100), [lambda task, own=own: first_waits(own, task) for own in seen])  # type: ignore[misc]
    assert [len(own) for own in seen] == [1, 1, 1, 1]
    assert len(set.union(*seen)) == 4


def test_the_first_error_is_raised_and_stops_the_rest() -> None:
    done: list[int] = []

    def worker(task: int) -> None:
        if task == 3:
            raise ValueError(task)
        done.append(task)

    with pytest.raises(ValueError, match="3"):
        run_tasks(iter(range(10_000)), [worker, worker])
    assert len(done) < 10_000
    assert threading.active_count() < 10


def test_where_the_system_grants_no_thread_the_others_are_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, stopped = threading.Thread.start, threading.Event()
    granted = iter([True, True])

    def start_or_refuse(thread: threading.Thread) -> None:
        if not next(granted, False):
            raise RuntimeError("can't start new thread")
        start(thread)

    def endless() -> Iterator[int]:
        while not stopped.is_set():
            yield 0

    before = threading.active_count()
    monkeypatch.setattr(threading.Thread, "start", start_or_refuse)
    try:
        with pytest.raises(MemoryError, match="start new thread"):
            run_tasks(endless(), [lambda _: None] * 3)
        assert threading.active_count() == before
    finally:
        stopped.set()


def test_an_error_in_the_tasks_themselves_is_raised() -> None:
    def tasks() -> Iterator[int]:
        yield 1
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        run_tasks(tasks(), [lambda _: None, lambda _: None])


def test_an_interrupt_waits_for_the_task_in_hand_and_starts_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, release = threading.Event(), threading.Event()
    done: list[int] = []
    join = threading.Thread.join

    def worker(task: int) -> None:
        begun.set()
        release.wait(10)
        done.append(task)

    def interrupted_join(self: threading.Thread, timeout: float | None = None) -> None:
        """Ctrl-C arrives while the caller waits; only the first time."""
        monkeypatch.setattr(threading.Thread, "join", join)
        begun.wait(10)
        threading.Timer(0.05, release.set).start()
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "join", interrupted_join)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_tasks(iter(range(1000)), [worker])
    assert done == [0]
    assert time.monotonic() - started < 5

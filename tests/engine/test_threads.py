"""Tasks are done once each by whoever is free, and the first error stops everybody."""

import itertools
import threading
from collections.abc import Iterator

import pytest

from weightsmith.engine.executors.threads import run_tasks


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads that are started while a test runs."""
    start, threads = threading.Thread.start, list[threading.Thread]()

    def start_and_tell(thread: threading.Thread) -> None:
        start(thread)
        threads.append(thread)

    monkeypatch.setattr(threading.Thread, "start", start_and_tell)
    return threads


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
            gate.wait()  # so that all four take part
        worker(own)

    run_tasks(range(100), [lambda task, own=own: first_waits(own, task) for own in seen])  # type: ignore[misc]
    assert [len(own) for own in seen] == [1, 1, 1, 1]
    assert len(set.union(*seen)) == 4


def test_the_first_error_is_raised_and_stops_the_rest(started: list[threading.Thread]) -> None:
    """Of tasks that would never end."""

    def worker(task: int) -> None:
        if task == 3:
            raise ValueError(task)

    with pytest.raises(ValueError, match="3"):
        run_tasks(itertools.count(), [worker, worker])
    assert len(started) == 2
    assert not any(thread.is_alive() for thread in started)


def test_where_the_system_grants_no_thread_the_others_are_stopped(
    started: list[threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def start_or_refuse(thread: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_refuse)
    with pytest.raises(MemoryError, match="start new thread"):
        run_tasks(itertools.count(), [lambda _: None] * 3)
    assert len(started) == 2
    assert not any(thread.is_alive() for thread in started)


def test_an_error_in_the_tasks_themselves_is_raised() -> None:
    def tasks() -> Iterator[int]:
        yield 1
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        run_tasks(tasks(), [lambda _: None, lambda _: None])


class Interrupted:
    """One worker, which is in the middle of its first task when Ctrl-C arrives, and goes on with it
    once it is waited for again.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.release = threading.Event(), threading.Event()
        self.done: list[int] = []
        self._monkeypatch = monkeypatch

    def work(self, task: int) -> None:
        self.begun.set()
        self.release.wait()
        self.done.append(task)

    def run(self) -> None:
        join = threading.Thread.join

        def join_and_release(thread: threading.Thread) -> None:
            self.release.set()
            join(thread)

        def interrupt(thread: threading.Thread) -> None:
            self._monkeypatch.setattr(threading.Thread, "join", join_and_release)
            self.begun.wait()
            raise KeyboardInterrupt

        self._monkeypatch.setattr(threading.Thread, "join", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_tasks(itertools.count(), [self.work])


def test_an_interrupt_waits_for_the_task_in_hand_and_starts_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    interrupted = Interrupted(monkeypatch)
    interrupted.run()
    assert interrupted.done == [0]


def test_an_interrupt_while_a_thread_starts_waits_for_its_task_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has begun, and the call that started it has not returned."""
    interrupted, start = Interrupted(monkeypatch), threading.Thread.start

    def start_and_interrupt(thread: threading.Thread) -> None:
        start(thread)
        thread.join()

    monkeypatch.setattr(threading.Thread, "start", start_and_interrupt)
    interrupted.run()
    assert interrupted.done == [0]

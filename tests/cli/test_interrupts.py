"""Signals that ask a run to end are heard at any time, and once."""

import signal
import time
from collections.abc import Iterator

import pytest

from weightsmith.cli.interrupts import HangUp, listen

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
HERE = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Those of a process that has just begun; afterwards those of the tests."""
    before = {number: signal.getsignal(number) for number in HERE}
    for number in HERE:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Dropped:
    """An object that is told of a signal while it is finalized."""

    def __init__(self, number: int, finished: list[bool]) -> None:
        self.number, self.finished = number, finished

    def __del__(self) -> None:
        self._close()
        self.finished.append(True)

    def _close(self) -> None:
        signal.raise_signal(self.number)


@pytest.mark.parametrize("number", HERE)
def test_a_signal_that_comes_in_a_finalizer_ends_the_run_after_it(number: int) -> None:
    """pytest fails a test in which Python printed what a finalizer raised."""
    listen()
    finished: list[bool] = []

    def drop_and_work() -> None:
        Dropped(number, finished)
        time.sleep(60)

    with pytest.raises(KeyboardInterrupt) as caught:
        drop_and_work()
    assert finished == [True]
    assert isinstance(caught.value, HangUp) == (number == getattr(signal, "SIGHUP", None))


@pytest.mark.parametrize("number", HERE)
def test_any_other_time_it_ends_it_at_once(number: int) -> None:
    listen()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
def test_what_the_shell_has_ignored_stays_so(name: str) -> None:
    number = getattr(signal, name, signal.SIGINT)
    signal.signal(number, signal.SIG_IGN)
    listen()
    assert signal.getsignal(number) is signal.SIG_IGN

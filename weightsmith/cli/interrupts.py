"""Signals that ask a run to end: Ctrl-C, SIGTERM, and SIGHUP of a terminal that has gone."""

import _thread
import signal
import threading
import time
from types import FrameType
from typing import Final

_AGAIN_AFTER_S: Final = 0.001


class HangUp(KeyboardInterrupt):
    """The terminal has gone; what is at work ends as at an interrupt."""


def listen() -> None:
    """Let each of these signals raise KeyboardInterrupt in the main thread."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)  # unless the shell has it ignored
    # What stops a job politely (a scheduler, a shutdown) is an interrupt like any other.
    signal.signal(signal.SIGTERM, _interrupt)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _interrupt)  # unless nohup has it ignored


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise, in the main thread; within a ``__del__``, once that is over.

    Python prints what is raised there and goes on, so that the signal would be lost.
    """
    if _is_finalizing(frame):
        # Not by `threading`, whose locks the code around the finalizer may hold.
        _thread.start_new_thread(_send_again, (threading.get_ident(), number))
    elif number == getattr(signal, "SIGHUP", None):
        raise HangUp
    else:
        raise KeyboardInterrupt


def _is_finalizing(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


def _send_again(main: int, number: int) -> None:
    time.sleep(_AGAIN_AFTER_S)
    if hasattr(signal, "pthread_kill"):
        # To the main thread, so that what it waits for in the system ends.
        signal.pthread_kill(main, number)
    else:
        _thread.interrupt_main(signal.Signals(number))

"""Two processes that take turns: one goes on until a chosen point, then the other does.

A point is a durable step or a lock, of either, counted over both; the first one begins. Whoever
waits for a lock that the other holds passes the turn. So a schedule, the set of points at which the
turn is passed, says which of all interleavings is run, and runs it again.
"""

import contextlib
import fcntl
import select
import socket
from collections.abc import Callable, Collection
from typing import Any, Final

_POINT: Final = b"p"
_WAITS: Final = b"w"
_GO_ON: Final = b"g"
STUCK_AFTER_S: Final = 1.0
"""A process that has the turn and makes no point for so long may wait for the other by other means
than a lock.
"""


class Turns:
    """The side of whoever started the two."""

    def __init__(self, schedule: Collection[int]) -> None:
        """Nobody is there yet."""
        self._schedule = schedule
        self._points = 0
        self._order = ""
        self._turn = 0
        self._ours: list[socket.socket] = []
        self._theirs: list[socket.socket] = []
        for _ in range(2):
            ours, theirs = socket.socketpair()
            self._ours.append(ours)
            self._theirs.append(theirs)
        self._said: list[list[bytes]] = [[], []]
        """Points that they came to and have not made."""
        self._paused = [0, 0]
        """Points that they made, and are held at."""
        self._gone = [False, False]

    def player(self, number: int) -> socket.socket:
        """What process 0 or 1 speaks through; in it nobody else's ends stay open."""
        for each in (*self._ours, self._theirs[1 - number]):
            each.close()
        return self._theirs[number]

    def play(self) -> str:
        """Let them take turns until both have ended; who made each point, as digits."""
        for each in self._theirs:
            each.close()
        while not all(self._gone):
            open_ = [each for each in self._ours if not self._gone[self._ours.index(each)]]
            ready, _, _ = select.select(open_, [], [], STUCK_AFTER_S)
            if not ready:
                self._pass_turn()
                self._go_on()
            for each in ready:
                self._hear(self._ours.index(each))
        for each in self._ours:
            each.close()
        return self._order

    def _hear(self, who: int) -> None:
        said = self._ours[who].recv(1)
        if said:
            self._said[who].append(said)
        else:
            self._gone[who] = True
            if self._turn == who:
                self._pass_turn()
        self._go_on()

    def _pass_turn(self) -> None:
        if not self._gone[1 - self._turn]:
            self._turn = 1 - self._turn

    def _go_on(self) -> None:
        """Let whoever has the turn make its points."""
        while True:
            who = self._turn
            if self._paused[who]:
                self._release(who, self._paused[who])
                self._paused[who] = 0
            elif self._said[who]:
                said = self._said[who].pop(0)
                self._points += 1
                self._order += str(who)
                if said == _WAITS or self._points in self._schedule:
                    self._paused[who] += 1
                    self._pass_turn()
                else:
                    self._release(who, 1)
            else:
                return

    def _release(self, who: int, count: int) -> None:
        with contextlib.suppress(OSError):  # it may have been killed
            self._ours[who].sendall(_GO_ON * count)


def take_turns(with_: socket.socket, lock: Callable[..., Any]) -> Callable[[], None]:
    """In such a process: every lock is a point from now on; returns what a durable step must call
    to be one. `lock` is what locks.
    """

    def point(said: bytes = _POINT) -> None:
        with_.sendall(said)
        with_.recv(1)

    def flock(file: Any, how: int) -> None:
        point()
        waits = how & fcntl.LOCK_EX and not how & fcntl.LOCK_NB
        while True:
            try:
                lock(file, how | fcntl.LOCK_NB if waits else how)
            except BlockingIOError:
                point(_WAITS)
                if not waits:
                    raise
            else:
                return

    fcntl.flock = flock
    point()
    return point

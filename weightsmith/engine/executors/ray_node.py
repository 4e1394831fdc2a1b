"""What runs on the nodes of a Ray cluster: the task that makes files, the board that it takes them
from, and the question what a node is.
"""

import importlib
import platform
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from weightsmith.engine.options import Bindings, Options
from weightsmith.engine.receipts import Receipt, read_receipt
from weightsmith.engine.staging import Staging
from weightsmith.errors import StagingBusy, WeightsmithError
from weightsmith.plan.model import Plan
from weightsmith.progress import Progress

TELL_S: Final = 0.5
"""How often the board hears of a file, and the bar of all of them."""


class Job(Protocol):
    """What a task needs of the `Job` that planning anew gives it (`ops.job`, a floor above)."""

    @property
    def plan(self) -> Plan:
        """What is made."""
        ...

    @property
    def bindings(self) -> Bindings:
        """The inputs as that machine sees them."""
        ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a task is given to open a job with."""

    document: bytes
    """A saved plan."""
    opener: str
    """``module:function`` that makes a context manager with the job of it."""
    paths: tuple[str, ...]
    """What every node must see."""

    def open(self) -> AbstractContextManager[Job]:
        """The job, on this machine."""
        module, _, name = self.opener.partition(":")
        opened: AbstractContextManager[Job] = getattr(importlib.import_module(module), name)(
            self.document
        )
        return opened


@dataclass(frozen=True, slots=True)
class Seen:
    """What a board says."""

    nbytes: int
    """Done of all files."""
    made: list[Receipt]
    """Since the last look."""
    begun_again: list[tuple[int, str, str]]
    """Since the last look: a file's number, the node that did not finish it, and the one that
    makes it now.
    """


class Board:
    """Which files nobody makes yet, who makes the others, and how many bytes of them are done."""

    def __init__(self, numbers: Sequence[int]) -> None:
        """Nothing is begun; the files are given away in this order."""
        self._left = deque(numbers)
        self._attempts: Counter[int] = Counter()
        self._making: dict[int, tuple[int, str]] = {}
        """By task: its file, and the node."""
        self._lost: dict[int, str] = {}
        self._done: dict[int, int] = {}
        self._made: list[Receipt] = []
        self._begun_again: list[tuple[int, str, str]] = []

    def begin(self, task: int) -> int:
        """A task begins; returns how often it did. If it did before, that node is lost, and what
        was made there is free again.
        """
        if task in self._making:
            number, node = self._making.pop(task)
            self._lost[number] = node
            self._left.appendleft(number)
        self._attempts[task] += 1
        return self._attempts[task]

    def take(self, task: int, attempt: int, node: str, made: Receipt | None) -> int | None:
        """Hand in what was `made`, and take the next file; None where there is none left, or the
        task has begun anew elsewhere.
        """
        if made is not None:
            self._made.append(made)
        if attempt != self._attempts[task]:
            return None
        self._making.pop(task, None)
        if not self._left:
            return None
        number = self._left.popleft()
        if number in self._lost:
            self._begun_again.append((number, self._lost.pop(number), node))
        self._making[task], self._done[number] = (number, node), 0
        return number

    def stop(self) -> list[int]:
        """Give no file away any more; returns the tasks that are making one."""
        at_work = [*self._making]
        self._left.clear()
        self._making.clear()
        return at_work

    def tell(self, number: int, nbytes: int) -> None:
        """So many bytes of a file are done."""
        self._done[number] = nbytes

    def look(self) -> Seen:
        """What there is to say now."""
        seen = Seen(sum(self._done.values()), self._made, self._begun_again)
        self._made, self._begun_again = [], []
        return seen


class _Teller:
    """A progress that tells the board, now and then."""

    def __init__(self, board: Any, number: int) -> None:
        """Nothing is done yet."""
        self._board, self._number = board, number
        self._done, self._told = 0, time.monotonic()
        self._lock = threading.Lock()

    def begin(self, phase: str, total_nbytes: int) -> None:
        """Nothing: the driver knows."""

    def note(self, text: str) -> None:
        """Nothing: the driver says it too."""

    def advance(self, nbytes: int) -> None:
        """Count, and tell at most twice a second."""
        with self._lock:
            self._done += nbytes
            now = time.monotonic()
            if now - self._told >= TELL_S:
                self._told = now
                self._board.tell.remote(self._number, self._done)


def make_files(recipe: Recipe, task: int, options: Options, board: Any) -> bytes | None:
    """The task: file after file, each made as a share, until the board has none left.

    `task` is its number, which it keeps where it begins anew. Returns a known fault, pickled, so
    that it is not retried.
    """
    import pickle

    import ray

    from weightsmith.engine.share import make_share

    context = ray.get_runtime_context()
    address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]  # Ray's
    node = node_name(address, context.get_node_id())
    # Not by `ray.get`: while a task waits in that, Ray gives its CPU to the next one.
    attempt = board.begin.remote(task).future().result()

    def take(made: Receipt | None) -> int | None:
        # Waited for: a node that is lost from here on has been heard of.
        number: int | None = board.take.remote(task, attempt, node, made).future().result()
        return number

    if (number := take(None)) is None:
        return None
    try:
        with recipe.open() as job:
            plan, bindings = job.plan, job.bindings
            receipts = Staging(bindings.target).receipts
            while number is not None:
                teller: Progress = _Teller(board, number)
                make_share(plan, bindings, options, [number], teller)
                made = read_receipt(receipts, plan.shards[number])
                if made is None:
                    raise StagingBusy(target=bindings.target)
                number = take(made)
    except WeightsmithError as error:
        return pickle.dumps(error.with_context(f"on {platform.node()}"))
    return None


def node_name(address: str, node: str) -> str:
    """A node by its address and the beginning of its id."""
    return f"{address} ({node[:8]})"


def asking() -> Callable[[list[str], str], tuple[tuple[str, str], list[str], str]]:
    """A function that travels by value: a node with another weightsmith, or none, runs it too.

    It imports the module that opens jobs, so that all nodes do this at once, before the first file.
    """

    def ask(paths: list[str], opener: str) -> tuple[tuple[str, str], list[str], str]:
        import importlib
        import os
        import platform

        try:
            from weightsmith.version import __version__
        except ImportError:
            return ("none", platform.python_version()), [], ""
        try:
            from weightsmith.engine.receipts import processor

            cpu = processor()
            importlib.import_module(opener)
        except ImportError:
            cpu = ""
        missing = [path for path in paths if not os.path.lexists(path)]
        return (__version__, platform.python_version()), missing, cpu

    return ask

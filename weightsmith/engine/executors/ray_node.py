"""What runs on the nodes of a Ray cluster: the task of a file, and the question what a node is."""

import importlib
import platform
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from weightsmith.engine.options import Bindings, Options
from weightsmith.engine.receipts import Receipt, read_receipt
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
    begun_again: list[tuple[int, str, str]]
    """Since the last look: a file's number, the node that did not finish it, and the one that
    makes it now.
    """


class Board:
    """Where each file is made, and how many bytes of it are done."""

    def __init__(self) -> None:
        """Nothing is begun."""
        self._done: dict[int, int] = {}
        self._where: dict[int, str] = {}
        self._begun_again: list[tuple[int, str, str]] = []

    def begin(self, number: int, node: str) -> None:
        """A file is begun there; if it was before, whoever did will not finish it."""
        if number in self._where:
            self._begun_again.append((number, self._where[number], node))
        self._where[number], self._done[number] = node, 0

    def tell(self, number: int, nbytes: int) -> None:
        """So many bytes of a file are done."""
        self._done[number] = nbytes

    def look(self) -> Seen:
        """What there is to say now."""
        begun_again, self._begun_again = self._begun_again, []
        return Seen(sum(self._done.values()), begun_again)


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


def make_file(recipe: Recipe, number: int, options: Options, board: Any) -> Receipt | bytes:
    """The task: one file, made as a share; a known fault is returned, pickled, and not retried."""
    import pickle

    import ray

    from weightsmith.engine.share import make_share

    # Waited for: a node that is lost from here on has been heard of.
    context = ray.get_runtime_context()
    address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]  # Ray's
    ray.get(board.begin.remote(number, node_name(address, context.get_node_id())))
    try:
        with recipe.open() as job:
            plan, bindings = job.plan, job.bindings
            teller: Progress = _Teller(board, number)
            make_share(plan, bindings, options, [number], teller)
            receipts = bindings.target.with_name(f".{bindings.target.name}.weightsmith-partial")
            receipt = read_receipt(receipts / "receipts", plan.shards[number])
            if receipt is None:
                raise StagingBusy(target=bindings.target)
            return receipt
    except WeightsmithError as error:
        return pickle.dumps(error.with_context(f"on {platform.node()}"))


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

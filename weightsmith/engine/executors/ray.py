"""Shards made by tasks of a Ray cluster whose nodes share a file system.

Ray schedules, retries and transports. A task opens the inputs where it runs, by planning anew, and
makes one file after the other as a share (`engine.share`); the process that asked publishes.

The next file goes to whichever task is free first (`ray_node.Board`). With a task for each file,
Ray took up to a tenth of a second to find that another node was free, and kept one node idle while
files waited for the other. There are as many tasks as files all the same: nodes that join later
find some to run, and one that finds no file left ends at once.
"""

import contextlib
import logging
import os
import platform
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from weightsmith.engine.executors.executor import Work
from weightsmith.engine.executors.local import nbytes_to_do
from weightsmith.engine.executors.ray_node import (
    TELL_S,
    Board,
    Recipe,
    Seen,
    asking,
    make_files,
    node_name,
)
from weightsmith.engine.receipts import Receipt, require_one_machine
from weightsmith.errors import (
    ClusterFailed,
    ClusterNotFound,
    NodeBlind,
    OptionMeaningless,
    PackageMissing,
    VersionsDiffer,
)
from weightsmith.version import __version__

_RETRIES: Final = 10
"""How many lost nodes a file survives."""
_ANSWER_S: Final = 120.0
"""How long a node may take to say what it is: it imports weightsmith for it."""
_KNOCK_S: Final = 10.0
_SKIPS: Final = "RAY_DEDUP_LOGS_SKIP_REGEX"
_END_S: Final = 10.0
"""How long tasks that are called off have for clearing up."""


class Ray:
    """The executor that has tasks of the cluster that is connected make the shards."""

    anywhere = True

    def __init__(self, recipe: Recipe) -> None:
        """Use `connected`."""
        self._recipe = recipe

    def make(self, work: Work, numbers: Sequence[int]) -> Mapping[str, Receipt]:
        """As `Executor.make`; the files of a lost node are made on others, and that is noted.

        Raises: NodeBlind, VersionsDiffer, MachinesDiffer, before anything is made; ClusterFailed.
        """
        import pickle

        import ray
        from ray.exceptions import RayError, RayTaskError

        if not numbers:
            return {}
        nodes = _alive()
        # Before the nodes are asked: the processes that answer are then free for the first files.
        here = _here(ray.get_runtime_context().get_node_id())
        # The largest first: the nodes then end at about the same time.
        order = sorted(numbers, key=lambda number: -work.plan.shards[number].nbytes)
        board: Any = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote(order)
        _require_nodes(nodes, work, self._recipe)
        cpus = max(int(each["Resources"]["CPU"]) for each in nodes.values())
        options, threads = work.options, min(work.options.threads, cpus)
        recipe = ray.put(self._recipe)
        task = ray.remote(make_files).options(
            num_cpus=threads, max_retries=_RETRIES, scheduling_strategy="SPREAD"
        )
        work.progress.note(f"files to make: {len(numbers)}; nodes: {len(nodes)}")
        tasks = [task.remote(recipe, count, options, board) for count in range(len(numbers))]
        pending = tasks
        found: dict[str, Receipt] = {}
        seen = 0
        try:
            while len(found) < len(numbers):
                done, pending = ray.wait(pending, timeout=TELL_S)
                for fault in filter(None, ray.get(done)):
                    raise pickle.loads(fault)  # noqa: S301  (of our own task)
                seen_now: Seen = ray.get(board.look.remote())
                work.progress.advance(max(seen_now.nbytes - seen, 0))
                seen = max(seen_now.nbytes, seen)
                for number, lost, node in seen_now.begun_again:
                    name = work.plan.shards[number].name
                    work.progress.note(f"{lost} did not finish {name}; {node} makes it again")
                for receipt in seen_now.made:
                    work.require_finite(receipt)
                    found[receipt.shard] = receipt
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            raise ClusterFailed(reason=str(error).partition("\n")[0]) from error
        finally:
            if len(found) < len(numbers):  # an interrupt, or a fault of one file
                _call_off(board, tasks)
        due = sum(nbytes_to_do(work.plan.shards[n], options.verify, kept=False) for n in numbers)
        work.progress.advance(max(due - seen, 0))
        require_one_machine({name: each.machine for name, each in found.items()})
        for name in found:
            work.staging.synced(name, (work.staging.output / name).lstat())
        work.require_unchanged(found)
        return found


@contextlib.contextmanager
def connected(address: str, recipe: Recipe) -> Iterator[Ray]:
    """The executor of the cluster at ``auto`` or ``HOST:PORT``.

    Raises: PackageMissing, ClusterNotFound, VersionsDiffer.
    """
    try:
        with _nothing_printed():
            import ray
    except ImportError as error:
        raise PackageMissing(wish="`executor=ray`", package="weightsmith[ray]") from error
    ours = not ray.is_initialized()
    if ours:
        _require_answer(address)
        before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
        except (ConnectionError, ValueError) as error:
            raise ClusterNotFound(address=address) from error
        except RuntimeError as error:
            if "ersion mismatch" not in str(error):
                raise ClusterNotFound(address=address) from error
            reason = " ".join(str(error).split())
            here = f"Ray {ray.__version__} and Python {platform.python_version()}"
            raise VersionsDiffer(what="the cluster", theirs=reason, ours=here) from error
        finally:
            if threading.current_thread() is threading.main_thread():
                for each, handler in before.items():
                    signal.signal(each, handler)
    try:
        yield Ray(recipe)
    finally:
        if ours:
            ray.shutdown()


@contextlib.contextmanager
def _nothing_printed() -> Iterator[None]:
    """While Ray is imported: have it skip all lines that it would print for other processes.

    It prints to stdout, where our results go, and a lost node alone is a page of them. Whoever
    imported Ray before, or set the variable, decided for themselves.
    """
    if _SKIPS in os.environ:
        yield
        return
    os.environ[_SKIPS] = "^"
    try:
        yield
    finally:
        del os.environ[_SKIPS]


def _require_answer(address: str) -> None:
    """Knock first: of an address where nobody is, Ray tells only after minutes.

    Raises: OptionMeaningless, ClusterNotFound.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        reason = f"{address!r} is neither auto nor HOST:PORT"
        raise OptionMeaningless(options="`ray_address`", reason=reason)
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterNotFound(address=address) from error


def _call_off(board: Any, tasks: Sequence[Any]) -> None:
    """Have the tasks that are making a file stop and clear up; the others find none to make.

    Those are not cancelled: where a task ends at that moment, Ray may end our process.
    """
    import ray

    with contextlib.suppress(ray.exceptions.RayError):
        at_work = [tasks[number] for number in ray.get(board.stop.remote())]
        for each in at_work:
            ray.cancel(each)
        if at_work:
            ray.wait(at_work, num_returns=len(at_work), timeout=_END_S)


def _alive() -> dict[str, dict[str, Any]]:
    """The nodes that have a CPU to give, by address and the beginning of their id."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's
    return {
        node_name(each["NodeManagerAddress"], each["NodeID"]): each
        for each in nodes
        if each["Alive"] and each["Resources"].get("CPU")
    }


def _here(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def _require_nodes(nodes: Mapping[str, dict[str, Any]], work: Work, recipe: Recipe) -> None:
    """Ask every node what it is and sees.

    Raises: ClusterFailed, VersionsDiffer, NodeBlind, MachinesDiffer.
    """
    import ray

    if not nodes:
        raise ClusterFailed(reason="no node of it has a CPU to give")
    paths = [*recipe.paths, str(work.staging.plan_path)]
    asked = {}
    for name, each in nodes.items():
        task = ray.remote(asking()).options(num_cpus=0, scheduling_strategy=_here(each["NodeID"]))
        asked[name] = task.remote(paths, recipe.opener.partition(":")[0])
    try:
        told = dict(zip(asked, ray.get(list(asked.values()), timeout=_ANSWER_S), strict=True))
    except ray.exceptions.RayError as error:
        reason = f"a node does not answer: {type(error).__name__}"
        raise ClusterFailed(reason=reason) from error
    here = (__version__, platform.python_version())
    for name, (versions, _, _) in told.items():
        if versions != here:
            theirs, ours = ("weightsmith {}, Python {}".format(*each) for each in (versions, here))
            raise VersionsDiffer(what=name, theirs=theirs, ours=ours)
    blind = [f"{name}: {path}" for name, (_, missing, _) in told.items() for path in missing]
    if blind:
        raise NodeBlind(count=len(blind), context=blind)
    if work.plan.multiplies:
        require_one_machine({name: cpu for name, (_, _, cpu) in told.items()})

"""Seconds that an apply takes by threads, or on a Ray cluster of two nodes of one CPU each, from
the moment that its plan is made and its cluster connected to the published directory.

    python -m tests.bench.nodes threads|ray BASE DELTA TARGET SHARD_NBYTES

Prints two numbers. The first counts from the first task, which the executor gives away after it has
asked each node what it is; the second counts the asking too. Of threads, which nobody asks, both
are the same. The nodes are processes of this machine; starting them is in neither.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from weightsmith import Options, plan_apply_delta
from weightsmith.progress import Silence

NODES = 2


class Stopwatch(Silence):
    """Knows when the first phase of a run began, and when it first had something to say: of Ray's,
    how many nodes take part, as it gives the first file to one.
    """

    began = 0.0
    first_task = 0.0

    def begin(self, phase: str, total_nbytes: int) -> None:
        """Start, once."""
        self.began = self.began or time.perf_counter()

    def note(self, text: str) -> None:
        """Start the second watch, once."""
        self.first_task = self.first_task or time.perf_counter()


def main(way: str, base: str, delta: str, target: str, shard_nbytes: str) -> None:
    """Apply, and print how long it took."""
    options = Options(workers=NODES)
    if way == "ray":
        options = Options(workers=1, executor="ray")
    watch = Stopwatch()
    job = plan_apply_delta(base, delta, target=target, max_shard_nbytes=int(shard_nbytes))
    with nodes() if way == "ray" else nullcontext():
        job.run(options, watch)
        end = time.perf_counter()
    print(end - (watch.first_task if way == "ray" else watch.began), end - watch.began)


@contextmanager
def nodes() -> Iterator[None]:
    """A cluster that this process is connected to."""
    import ray
    from ray.cluster_utils import Cluster

    Path("/tmp/ray").mkdir(exist_ok=True)  # noqa: S108  (Ray's)
    each: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={**each, "include_dashboard": False})
    try:
        for _ in range(NODES - 1):
            cluster.add_node(**each)
        ray.init(address=cluster.address, log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(*sys.argv[1:])

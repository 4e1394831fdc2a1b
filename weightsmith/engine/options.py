"""What a plan is run on (paths, open files) and how (threads, memory): nothing of it changes the
output, so nothing of it is in the plan or its digest.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.content import Content

ExecutorName = Literal["threads", "ray"]
Verify = Literal["cache", "disk", "no"]


@dataclass(frozen=True, slots=True)
class Bindings:
    """The real things behind a plan's names."""

    inputs: Mapping[str, Checkpoint]
    """By role."""
    sidecars: Mapping[str, Content]
    """What to publish, by file name; the plan holds their digests."""
    target: Path
    """The directory to publish, absolute."""
    finite: tuple[str, ...] = ()
    """Roles of inputs whose values must be numbers, unless the options allow others."""


def default_workers() -> int:
    """Two threads saturate what a disk gives; more than four only add memory."""
    return min(os.cpu_count() or 1, 4)


@dataclass(frozen=True, slots=True)
class Options:
    """How to run; none of this changes a byte of the output."""

    workers: int = field(default_factory=default_workers)
    low_cpu_mem: bool = False
    """One worker, and the page cache of all files given back as the run goes on."""
    verify: Verify = "cache"
    """Read the output back from the page cache, from the medium, or not at all."""
    overwrite: bool = False
    """Replace an existing target once the new one is whole."""
    restart: bool = False
    """Discard unfinished staging."""
    allow_nonfinite: bool = False
    """Take an adapter or a delta that holds values which are no numbers."""

    executor: ExecutorName = "threads"
    """Threads of this process, or tasks of a Ray cluster, each with `workers` threads."""
    ray_address: str = "auto"
    """Where the cluster is: ``auto`` or ``HOST:PORT``."""

    @property
    def threads(self) -> int:
        """Worker threads to start."""
        return 1 if self.low_cpu_mem else max(self.workers, 1)

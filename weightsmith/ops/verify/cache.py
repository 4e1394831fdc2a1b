"""Hold the files in the hub's cache against the hashes that they are named by, offline."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from weightsmith.engine.executors.threads import run_tasks
from weightsmith.engine.options import Options
from weightsmith.hub.cache import scan
from weightsmith.hub.connection import connect
from weightsmith.hub.rehash import Blob, blobs_of, is_sound
from weightsmith.ops.verify.report import Check, Report
from weightsmith.progress import SILENCE, Progress
from weightsmith.units import counted, format_size


@dataclass(frozen=True, slots=True)
class Subset:
    """One of several shares of a cache that take turns; a file stays in its share for ever."""

    number: int = 1
    """From 1."""
    of: int = 1

    def holds(self, blob: Blob) -> bool:
        """Whether a blob is in this share."""
        return int(blob.digest[:8], 16) % self.of == self.number - 1


def verify_cache(
    *,
    subset: Subset | None = None,
    cache: str | os.PathLike[str] | None = None,
    options: Options | None = None,
    progress: Progress = SILENCE,
) -> Report:
    """Hash the cached files again, or one share of them; reading them does not count as a use.

    Memory: 1 MiB a worker.
    """
    options = options or Options()
    found = scan(connect(cache=cache, offline=True).cache)
    everything, unnamed = blobs_of(found)
    share = subset or Subset()
    blobs = [blob for blob in everything if share.holds(blob)]
    progress.begin("hashing", sum(blob.nbytes for blob in blobs))
    damaged = _damaged(blobs, options.threads, progress)
    checks = [_files(blobs, damaged, share, len(everything))]
    if unnamed:
        checks.append(Check("unnamed", "not checked", unnamed))
    if found.unreadable:
        checks.append(Check("directories", "not checked", found.unreadable))
    return Report(str(found.root), tuple(checks))


def _damaged(blobs: Sequence[Blob], threads: int, progress: Progress) -> list[Blob]:
    damaged: list[Blob] = []

    def check(blob: Blob) -> None:
        if not is_sound(blob, progress.advance):
            damaged.append(blob)
            progress.note(f"damaged: {blob.files[0]}")

    largest_first = sorted(blobs, key=lambda blob: -blob.nbytes)
    workers: list[Callable[[Blob], None]] = [check] * threads
    run_tasks(largest_first, workers)
    return sorted(damaged, key=lambda blob: blob.files)


def _files(blobs: Sequence[Blob], damaged: Sequence[Blob], share: Subset, total: int) -> Check:
    if damaged:
        problems = [f"{file} is damaged ({b.bytes_at})" for b in damaged for file in b.files]
        hint = f"weightsmith download {damaged[0].source}, which fetches anew what is damaged"
        return Check("files", "FAIL", tuple(problems), hint)
    kinds = Counter("sha256" if len(blob.digest) == 64 else "git's id" for blob in blobs)
    hashes = " and ".join(f"{count} by {kind}" for kind, count in sorted(kinds.items()))
    size = format_size(sum(blob.nbytes for blob in blobs))
    part = f" (share {share.number} of {share.of}; {total} in all)" if share.of > 1 else ""
    named = f", {hashes}" if hashes else ""
    return Check("files", "pass", (f"{counted(len(blobs), 'sound file')}, {size}{named}{part}",))

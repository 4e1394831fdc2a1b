"""Which input files which shards read, so that each can be dropped as soon as it is read no more."""

from collections.abc import Mapping, Sequence

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.plan.model import ShardPlan

File = tuple[str, str]
"""Role and file name."""


def files_read(
    shards: Sequence[ShardPlan], inputs: Mapping[str, Checkpoint]
) -> list[frozenset[File]]:
    """The input files that each shard's tensors come from."""
    return [
        frozenset(
            (each.role, file)
            for tensor in shard.tensors
            for each in tensor.inputs
            for file in inputs[each.role].files_of(each.info.name)
        )
        for shard in shards
    ]


def last_reads(reads: Sequence[frozenset[File]]) -> list[frozenset[File]]:
    """The files that each shard is the last to read."""
    later: set[File] = set()
    last: list[frozenset[File]] = []
    for files in reversed(reads):
        last.append(files - later)
        later |= files
    return last[::-1]


def streamed_nbytes(shards: Sequence[ShardPlan], inputs: Mapping[str, Checkpoint]) -> int:
    """The most disk that input files take at a time, each from its first read to its last."""
    reads = files_read(shards, inputs)
    held: set[File] = set()
    most = 0
    for files, dropped in zip(reads, last_reads(reads), strict=True):
        held |= files
        most = max(most, sum(inputs[role].disk_nbytes(name) for role, name in held))
        held -= dropped
    return most

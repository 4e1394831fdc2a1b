"""Lay tensors out into shards."""

from collections.abc import Iterable, Mapping
from typing import Final

from weightsmith.plan.model import METADATA, ShardPlan, TensorPlan

MAX_SHARD_NBYTES: Final = 5_000_000_000
"""Largest output file, unless told otherwise; a larger tensor still has a file of its own."""


def lay_out(
    tensors: Iterable[TensorPlan],
    max_shard_nbytes: int,
    metadata: Mapping[str, str] | None = None,
) -> tuple[ShardPlan, ...]:
    """Fill shards in the order given, each up to `max_shard_nbytes` of tensor data.

    The order is that of the delta's (or source's) files, so that a run that streams its inputs can
    drop each file early. A tensor larger than the limit has a shard of its own. `metadata` is what
    every file says besides.
    """
    groups: list[list[TensorPlan]] = [[]]
    filled = 0
    for tensor in tensors:
        nbytes = tensor.output.nbytes
        if groups[-1] and filled + nbytes > max_shard_nbytes:
            groups.append([])
            filled = 0
        groups[-1].append(tensor)
        filled += nbytes
    total = len(groups)
    return tuple(
        ShardPlan(
            _shard_name(number, total), tuple(group), metadata={**METADATA, **(metadata or {})}
        )
        for number, group in enumerate(groups, start=1)
    )


def _shard_name(number: int, total: int) -> str:
    """The hub's naming, so that every loader finds the shards."""
    if total == 1:
        return "model.safetensors"
    return f"model-{number:05d}-of-{total:05d}.safetensors"

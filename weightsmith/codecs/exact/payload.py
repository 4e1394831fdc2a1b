"""A payload of the rule *exact*, as bytes: its table, and where its spans lie.

    payload := "exact@1" LF, u32 length of each span, the spans

A payload is the U8 tensor that stands for a target tensor in a delta. A span is 2 MiB of the
target's bytes; each can be decoded by itself. Numbers are little-endian. What a span holds: `span`.
With spans that are coded by class, which came later, it begins with "exact@2". Those of the rule
*low-rank* begin with a word of their own.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Final

from weightsmith.checkpoint.digest import SPAN_NBYTES, span_count
from weightsmith.codecs.base import Range, ReadInput, Work
from weightsmith.errors import DeltaInvalid, DeltaUnknown
from weightsmith.formats.tensors import TensorInfo

MAGIC: Final = b"exact@1\n"
MAGIC_CODED: Final = b"exact@2\n"
"""Of a payload with spans that are coded by class."""
CODED: Final = 4
"""The kind of a span that is coded by class."""
_LENGTH_NBYTES: Final = 4


def table_nbytes(target: TensorInfo, magic: bytes = MAGIC) -> int:
    """Bytes of a payload's table."""
    return len(magic) + _LENGTH_NBYTES * span_count(target.nbytes)


def table_of(lengths: Sequence[int], magic: bytes = MAGIC) -> bytes:
    """A payload's table: its first bytes, and the length of each span."""
    return magic + b"".join(length.to_bytes(_LENGTH_NBYTES, "little") for length in lengths)


def is_coded(payload: bytes) -> bool:
    """Whether a span's payload is coded by class."""
    return payload[:1] == bytes([CODED])


def payload_limit(target: TensorInfo) -> int:
    """The most bytes that a payload has: its table, the target's bytes, and one more a span."""
    return table_nbytes(target) + target.nbytes + span_count(target.nbytes)


def place_of(number: int, output: TensorInfo) -> Range:
    """Where span `number` lies in the tensor."""
    return Range(number * SPAN_NBYTES, min((number + 1) * SPAN_NBYTES, output.nbytes))


def read_lengths(work: Work, read: ReadInput, magic: bytes, later: bytes = b"") -> list[int]:
    """The lengths of the spans, from a payload's table, which must begin with `magic`, or that of a
    later form, which is as long.

    Raises: DeltaUnknown, DeltaInvalid.
    """
    name = f"tensor {work.inputs[-1].name}"
    start = table_nbytes(work.output, magic)
    table = bytearray(min(start, work.inputs[-1].nbytes))
    read(len(work.inputs) - 1, 0, memoryview(table))
    if not table.startswith((magic, later or magic)):
        begin = bytes(table[: len(magic)]).decode("ascii", "replace").rstrip()
        if begin.startswith(magic.decode().partition("@")[0] + "@"):
            raise DeltaUnknown(what=name, found=begin)
        raise DeltaInvalid(name=name, reason="it does not begin as a payload does")
    if len(table) < start:
        raise DeltaInvalid(name=name, reason="its spans do not add up to its length")
    return [
        int.from_bytes(table[at : at + _LENGTH_NBYTES], "little")
        for at in range(len(magic), start, _LENGTH_NBYTES)
    ]


def place_spans(
    payload: TensorInfo, start: int, lengths: Sequence[int], limits: Sequence[int]
) -> tuple[Range, ...]:
    """Where the spans lie that begin at `start`, none longer than its limit.

    Raises: DeltaInvalid.
    """
    name = f"tensor {payload.name}"
    edges = list(accumulate(lengths, initial=start))
    if edges[-1] != payload.nbytes:
        raise DeltaInvalid(name=name, reason="its spans do not add up to its length")
    if any(length > limit for length, limit in zip(lengths, limits, strict=True)):
        raise DeltaInvalid(name=name, reason="a span is longer than the target's")
    return tuple(Range(*edge) for edge in pairwise(edges))

"""Any range of a tensor after several steps is what the steps make of it."""

import random
from typing import Any

import numpy as np
import pytest

from weightsmith.checkpoint.digest import SPAN_NBYTES
from weightsmith.codecs.base import Range, Work
from weightsmith.codecs.disk_delta import DiskDelta, Packer
from weightsmith.errors import DeltaInvalid
from weightsmith.formats.tensors import TensorInfo

NBYTES = 2 * SPAN_NBYTES + 777


def steps(counts: list[int]) -> list[bytes]:
    """A tensor, and what it is after each step, which changes so many bytes of it."""
    rng = np.random.default_rng(5)
    found = [rng.integers(0, 256, NBYTES, np.uint8)]
    for count in counts:
        after = found[-1].copy()
        after[rng.integers(0, NBYTES, count)] ^= 0x55
        found.append(after)
    return [each.tobytes() for each in found]


def work_of(states: list[bytes], encodings: list[Any]) -> tuple[DiskDelta, Work]:
    payloads = []
    for encoding, old, new in zip(encodings, states, states[1:], strict=False):
        packer = Packer(encoding)
        packer.add(memoryview(old), memoryview(new))
        payloads.append(packer.finish())
    infos = [TensorInfo(f"p{i}", "U8", (len(each),)) for i, each in enumerate(payloads)]
    info = TensorInfo("t", "U8", (NBYTES,))
    codec = DiskDelta(",".join(encodings))
    work = Work((info, *infos), info)

    def read(number: int, start: int, buffer: memoryview) -> None:
        buffer[:] = payloads[number - 1][start : start + len(buffer)]

    return codec, Work(work.inputs, info, codec.prepare(work, read))


@pytest.mark.parametrize(
    "encodings, counts",
    [
        (["xor"], [400]),
        (["xor"], [NBYTES]),
        (["overwrite"], [3000]),
        (["xor", "overwrite", "xor"], [NBYTES // 5, 900, 70]),
    ],
)
def test_any_range_in_any_order(encodings: list[str], counts: list[int]) -> None:
    states = steps(counts)
    codec, work = work_of(states, encodings)
    rng = random.Random(3)
    edges = [0, SPAN_NBYTES - 1, SPAN_NBYTES, 2 * SPAN_NBYTES + 1, NBYTES]
    for _ in range(30):
        start, stop = sorted(rng.choice([rng.randrange(NBYTES), *edges]) for _ in range(2))
        base = memoryview(states[0])[start:stop]
        out = memoryview(bytearray(stop - start))
        codec.apply(work, Range(start, stop), [base, *([memoryview(b"")] * len(counts))], out)
        assert out == states[-1][start:stop]


@pytest.mark.parametrize("encoding", ["xor", "overwrite"])
def test_a_payload_of_another_tensor_is_refused(encoding: str) -> None:
    longer = [each + b"\0" for each in steps([NBYTES])]
    with pytest.raises(DeltaInvalid):
        work_of([longer[0] + b"\0", longer[1] + b"\1"], [encoding])

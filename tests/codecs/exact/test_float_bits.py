"""Casts on bit patterns agree with torch wherever torch promises bits, and keep every NaN a NaN."""

import numpy as np
import pytest
import torch

from weightsmith.codecs.elements import Bits
from weightsmith.codecs.exact.cast_bits import cast_bits

EVERY = np.arange(1 << 16, dtype="<u2")
TORCH = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}


def as_torch(bits: Bits, dtype: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(bits.tobytes()), dtype=TORCH[dtype])


def around(bits: Bits) -> Bits:
    """These F32 patterns with their neighbours on both sides."""
    return np.concatenate([bits + np.uint32(step % 2**32) for step in range(-2, 3)]).astype("<u4")


def edges_of(dtype: str) -> Bits:
    """All values of a 16-bit dtype and the points half way between two of them, as F32."""
    values = as_torch(EVERY, dtype).double()
    values = values[values.isfinite()].sort().values
    middles = (values[1:] + values[:-1]) / 2
    return around(torch.cat([values, middles]).float().view(torch.int32).numpy().view("<u4"))


def check(bits: Bits, source: str, dtype: str) -> None:
    ours = cast_bits(bits, source, dtype)
    expected = as_torch(bits, source).to(TORCH[dtype])
    nan = expected.isnan().numpy()
    assert (as_torch(ours, dtype).isnan().numpy() == nan).all()
    kind = {2: torch.int16, 4: torch.int32}[expected.itemsize]
    assert (ours[~nan] == expected.view(kind).numpy().view(ours.dtype)[~nan]).all()


@pytest.mark.parametrize("source", ["F16", "BF16"])
@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_every_16_bit_pattern_is_cast_as_torch_does(source: str, dtype: str) -> None:
    check(EVERY, source, dtype)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_rounding_is_to_nearest_even_at_every_edge(dtype: str) -> None:
    check(edges_of(dtype), "F32", dtype)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_any_pattern_is_rounded_as_torch_does(dtype: str) -> None:
    check(np.random.default_rng(0).integers(0, 2**32, 200_000, dtype="<u4"), "F32", dtype)


def test_what_a_nan_carries_is_cast_alike_everywhere() -> None:
    """Processors do not agree on it."""
    assert (cast_bits(cast_bits(EVERY, "BF16", "F32"), "F32", "BF16") | 0x40 == EVERY | 0x40).all()
    assert cast_bits(np.array([0x7C01], "<u2"), "F16", "F32").tolist() == [0x7F802000]
    assert cast_bits(np.array([0xFFC00001], "<u4"), "F32", "F16").tolist() == [0xFE00]

"""The arithmetic of a difference, against torch's and against the definition."""

import itertools
import math
from typing import Final

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.support.folders import bits
from weightsmith.codecs import span_measure
from weightsmith.codecs.elements import Bits
from weightsmith.codecs.float_values import decode
from weightsmith.codecs.measure import FLOATS, Measure, combine, ulp_range
from weightsmith.codecs.span_measure import measure
from weightsmith.formats.tensors import DTYPE_BITS

TORCH: Final = {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
WIDTHS: Final = {"F16": 16, "BF16": 16, "F32": 32, "F64": 64}
INTEGERS: Final = {
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "BOOL": torch.bool,
}


def block(tensor: Tensor) -> memoryview:
    return memoryview(bytearray(bits(tensor).numpy()))


def random(dtype: torch.dtype, *, seed: int, numel: int = 3000) -> Tensor:
    return torch.randn(numel, generator=torch.Generator().manual_seed(seed)).to(dtype)


def values_of(patterns: Bits, dtype: str) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # signalling NaNs, made quiet
        return decode(patterns, dtype, np.empty(len(patterns)))


# --- bit patterns as values -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", sorted(FLOATS))
def test_every_short_pattern_has_the_value_that_torch_gives_it(dtype: str) -> None:
    width = DTYPE_BITS[dtype]
    rng = np.random.default_rng(0)
    patterns = np.arange(1 << width) if width <= 16 else rng.integers(0, 1 << 32, 100_000)
    patterns = patterns.astype(f"<u{width // 8}") << (width - 32 if width == 64 else 0)
    expected = torch.frombuffer(bytearray(patterns.tobytes()), dtype=TORCH[dtype]).double().numpy()
    np.testing.assert_array_equal(values_of(patterns, dtype), expected)


# --- units in the last place ----------------------------------------------------------------------


def ordinal(pattern: int, width: int) -> int:
    """A float's place among all floats of its width, by definition: sign and magnitude."""
    magnitude = pattern & ((1 << (width - 1)) - 1)
    return -magnitude - 1 if pattern >> (width - 1) else magnitude


@given(st.data(), st.sampled_from(sorted(WIDTHS)))
def test_ulps_are_the_distance_of_patterns_in_numeric_order(
    data: st.DataObject, dtype: str
) -> None:
    width = WIDTHS[dtype]
    pattern = st.integers(0, (1 << width) - 1)
    pairs = data.draw(st.lists(st.tuples(pattern, pattern), min_size=1, max_size=50))
    sides = [np.array(side, f"<u{width // 8}") for side in zip(*pairs, strict=True)]
    found = measure(sides[0].data.cast("B"), sides[1].data.cast("B"), dtype, dtype)
    expected = [0] * (width + 1)
    for a, b in pairs:
        expected[abs(ordinal(a, width) - ordinal(b, width)).bit_length()] += 1
    assert found.ulps == tuple(expected[: len(found.ulps)])
    assert not any(expected[len(found.ulps) :])
    assert found.changed == sum(a != b for a, b in pairs)


def test_neighbours_are_one_unit_apart_on_both_sides_of_zero() -> None:
    ladder = torch.tensor([-2.0, -1.0, -0.0, 0.0, 1.0, 65504.0], dtype=torch.float16)
    above = torch.nextafter(ladder, torch.tensor(math.inf, dtype=torch.float16))
    above[2] = 0.0  # nextafter does not tell the zeros apart
    assert measure(block(ladder), block(above), "F16", "F16").ulps == (0, 6)


def test_bins_are_named_by_their_bounds_and_hold_what_the_names_say() -> None:
    names = [ulp_range(number) for number in range(6)]
    assert names == ["0", "1", "2-3", "4-7", "8-15", "16-31"]
    for number, name in enumerate(names):
        low, _, high = name.partition("-")
        assert {int(low).bit_length(), int(high or low).bit_length()} == {number}


# --- shares and sizes -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", sorted(FLOATS))
def test_floats_are_measured_as_torch_would(dtype: str) -> None:
    a, b = (random(TORCH[dtype], seed=seed) for seed in (1, 2))
    b[:700] = a[:700]
    before, after = a.double(), b.double()
    sized = before.isfinite() & after.isfinite()
    before, after = before[sized], after[sized]
    found = measure(block(a), block(b), dtype, dtype)
    assert found.numel == 3000
    assert found.changed == int((bits(a) != bits(b)).reshape(3000, -1).any(1).sum())
    assert found.sized == int(sized.sum())
    assert found.largest == float((after - before).abs().max())
    assert math.isclose(found.change_squares, float((after - before).square().sum()))
    assert math.isclose(found.a_squares, float(before.square().sum()))
    assert found.relative is not None
    assert math.isclose(found.relative, float((after - before).norm() / before.norm()))
    assert sum(found.ulps) == (3000 if dtype in WIDTHS else 0)


@pytest.mark.parametrize(
    "a_dtype,b_dtype", [*itertools.permutations(["F16", "BF16", "F8_E5M2"], 2)]
)
def test_two_float_dtypes_are_compared_by_value(a_dtype: str, b_dtype: str) -> None:
    a = random(TORCH[a_dtype], seed=1)
    b = a.to(TORCH[b_dtype])
    a[0], b[0] = math.nan, math.nan
    a[1], b[1] = -0.0, 0.0
    found = measure(block(a), block(b), a_dtype, b_dtype)
    assert found.changed == int((a[1:].double() != b[1:].double()).sum())
    assert math.isclose(
        found.change_squares, float((a[1:].double() - b[1:].double()).square().sum()), abs_tol=1e-30
    )
    assert found.sized == 2999
    assert found.ulps == ()


def test_a_copy_in_a_wider_dtype_has_no_changed_value() -> None:
    a = random(torch.bfloat16, seed=1)
    found = measure(block(a), block(a.float()), "BF16", "F32")
    assert (found.changed, found.relative) == (0, 0.0)


@pytest.mark.parametrize("dtype", sorted(INTEGERS))
def test_integers_are_counted_and_have_no_size(dtype: str) -> None:
    a = torch.arange(1000).to(INTEGERS[dtype])
    b = a.clone()
    b[:10] = ~b[:10]
    found = measure(block(a), block(b), dtype, dtype)
    assert found == Measure(numel=1000, changed=10)
    assert found.relative is None


def test_dtypes_of_odd_widths_are_counted_in_bytes() -> None:
    a, b = bytearray(96), bytearray(96)
    b[5] = 1
    for dtype in ("F4", "F6_E2M3", "C128"):
        assert measure(memoryview(a), memoryview(b), dtype, dtype) == Measure(96, 1)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F64"])
def test_what_is_no_number_is_compared_by_bits_and_left_out_of_sizes(dtype: str) -> None:
    a = torch.ones(8).to(TORCH[dtype])
    b = a.clone()
    a[:4] = torch.tensor([math.nan, math.nan, math.inf, 1.0])
    b[:4] = torch.tensor([math.nan, 1.0, -math.inf, math.nan])
    b[7] = 3.0
    found = measure(block(a), block(b), dtype, dtype)
    assert (found.changed, found.sized) == (4, 4)
    assert (found.change_squares, found.a_squares, found.largest) == (4.0, 4.0, 2.0)
    same = measure(block(a), block(a), dtype, dtype)
    assert (same.changed, same.sized, same.relative) == (0, 5, 0.0)


def test_doubles_whose_squares_overflow_have_no_size() -> None:
    a = torch.tensor([1e200, 1e200, 1e99, 2.0], dtype=torch.float64)
    b = torch.tensor([-1e200, 1e200, 1e99, 3.0], dtype=torch.float64)
    found = measure(block(a), block(b), "F64", "F64")
    assert (found.changed, found.sized, found.change_squares) == (2, 2, 1.0)
    assert found.a_squares == pytest.approx(1e198)


def test_minus_zero_differs_from_zero_by_no_size() -> None:
    found = measure(block(torch.tensor([-0.0])), block(torch.tensor([0.0])), "F32", "F32")
    assert (found.changed, found.ulps, found.relative) == (1, (0, 1), 0.0)


def test_from_all_zeros_no_change_is_relative() -> None:
    found = measure(block(torch.zeros(3)), block(torch.ones(3)), "F32", "F32")
    assert (found.share, found.relative) == (1.0, None)


def test_nothing_measures_nothing() -> None:
    empty = measure(memoryview(b""), memoryview(b""), "F16", "F16")
    assert empty == combine([]) == Measure()
    assert (empty.share, empty.relative) == (0.0, None)


def test_parts_measure_what_the_whole_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block must not be seen in a result, but for the last digit of its sums."""
    a, b = random(torch.float16, seed=1), random(torch.float16, seed=2)
    whole = measure(block(a), block(b), "F16", "F16")
    monkeypatch.setattr(span_measure, "_BLOCK", 7)
    parts = measure(block(a), block(b), "F16", "F16")
    assert math.isclose(parts.change_squares, whole.change_squares)
    assert (parts.numel, parts.changed, parts.sized) == (whole.numel, whole.changed, whole.sized)
    assert (parts.largest, parts.ulps) == (whole.largest, whole.ulps)


@given(st.permutations(range(9)))
def test_the_order_of_parts_changes_no_bit(order: list[int]) -> None:
    parts = [
        Measure(10, n, 10, 0.1 * 3.7**n, 0.3 * 2.9**-n, float(n), (n,) * (n + 1)) for n in range(9)
    ]
    assert combine(parts[n] for n in order) == combine(parts)

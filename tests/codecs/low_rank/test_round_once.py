"""Floats become float64 exactly, and float64 a float with one rounding, to nearest even."""

import numpy as np
import pytest

from tests.support.low_rank_reader import FLOATS, round_to, value
from weightsmith.codecs.low_rank.round_once import FORMATS, Values, round_once, values_of

EVERY = np.arange(1 << 16, dtype="<u2")


def finite(dtype: str) -> np.ndarray:
    form = FORMATS[dtype]
    return EVERY[(EVERY & form.magnitude) < form.infinity]


def edges(dtype: str) -> Values:
    """Every value of a 16-bit dtype, the points half way between two of them, and the float64 on
    both sides of all of these.
    """
    values = np.unique(values_of(finite(dtype), dtype))
    points = np.concatenate([values, (values[1:] + values[:-1]) / 2])
    return np.concatenate([points, np.nextafter(points, -np.inf), np.nextafter(points, np.inf)])


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_every_16_bit_float_has_its_value(dtype: str) -> None:
    patterns = finite(dtype)
    found = values_of(patterns, dtype)
    assert found.tolist() == [value(int(each), dtype) for each in patterns]
    assert not np.signbit(found[found == 0]).any()


def test_any_32_bit_float_has_its_value() -> None:
    patterns = np.random.default_rng(0).integers(0, 1 << 32, 100_000, dtype="<u4")
    patterns[:5000] &= 0x807FFFFF  # subnormal
    numbers = patterns.view("<f4")
    expected = np.where(np.isfinite(numbers), numbers, 0).astype(np.float64) + 0.0
    assert (values_of(patterns, "F32").view("<u8") == expected.view("<u8")).all()
    assert (values_of(patterns.reshape(100, -1), "F32").reshape(-1) == expected).all()


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_infinity_and_nan_count_as_zero(dtype: str) -> None:
    form = FORMATS[dtype]
    special = EVERY[(EVERY & form.magnitude) >= form.infinity]
    assert not values_of(special, dtype).any()


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_a_float_is_rounded_to_itself(dtype: str) -> None:
    patterns = finite(dtype) if dtype != "F32" else np.arange(0, 0x7F800000, 9973, dtype="<u4")
    kept = patterns[(patterns & FORMATS[dtype].magnitude) > 0]
    assert (round_once(values_of(kept, dtype), dtype) == kept).all()


def test_at_every_edge_of_f16_it_rounds_as_numpy_does() -> None:
    """Whose cast rounds once, in integers."""
    with np.errstate(over="ignore"):
        expected = edges("F16").astype("<f2").view("<u2")
    assert (round_once(edges("F16"), "F16") == expected).all()


def test_at_every_edge_of_bf16_it_rounds_to_nearest_even() -> None:
    """Held against fractions, at some edges and all that are near zero or infinity."""
    points = np.sort(edges("BF16"))
    points = np.concatenate(
        [points[::409], points[:200], points[-200:], points[np.abs(points) < 1e-39]]
    )
    assert round_once(points.copy(), "BF16").tolist() == [round_to(each, "BF16") for each in points]


def test_a_second_rounding_would_be_another_number() -> None:
    """What a cast by way of float32 makes of it is one step off."""
    just_above_half = np.array([1 + 2.0**-11 + 2.0**-40])
    assert round_once(just_above_half.copy(), "F16").tolist() == [0x3C01]
    assert just_above_half.astype("<f4").astype("<f2").view("<u2").tolist() == [0x3C00]


def test_float32_is_rounded_as_the_processor_does() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(0, 1, 50_000) * 10.0 ** rng.integers(-46, 39, 50_000)
    with np.errstate(over="ignore", under="ignore"):
        expected = points.astype("<f4").view("<u4")
    assert (round_once(points, "F32") == expected).all()


@pytest.mark.parametrize("dtype", FLOATS)
def test_what_is_too_large_becomes_infinity_and_zero_keeps_its_sign(dtype: str) -> None:
    form = FORMATS[dtype]
    sign = 1 << (form.width - 1)
    points = np.array(
        [1e300, -1e300, form.overflow, np.nextafter(form.overflow, 0), 0.0, -0.0, -1e-60]
    )
    largest = form.infinity - 1
    expected = [form.infinity, form.infinity | sign, form.infinity, largest, 0, sign, sign]
    assert round_once(points, dtype).tolist() == expected

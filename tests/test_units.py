"""Sizes and durations, there and back."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightsmith.units import counted, format_duration, format_memory, format_size, parse_size


@pytest.mark.parametrize(
    "nbytes,disk,memory",
    [
        (0, "0 B", "0 B"),
        (999, "999 B", "999 B"),
        (1000, "1.00 kB", "0.98 KiB"),
        (1023, "1.02 kB", "1.00 KiB"),
        (102_400, "102 kB", "100 KiB"),
        (999_499, "999 kB", "976 KiB"),
        (999_500, "1.00 MB", "976 KiB"),
        (3_740_000_000, "3.74 GB", "3.48 GiB"),
        (13_476_850_000, "13.5 GB", "12.6 GiB"),
        (280 * 2**20, "294 MB", "280 MiB"),
        (1_300_000_000_000, "1.30 TB", "1.18 TiB"),
        (5 * 10**18, "5000 PB", "4441 PiB"),
    ],
)
def test_sizes_have_three_digits(nbytes: int, disk: str, memory: str) -> None:
    assert format_size(nbytes) == disk
    assert format_memory(nbytes) == memory


@pytest.mark.parametrize(
    "text,nbytes",
    [
        ("5GB", 5_000_000_000),
        ("5GiB", 5 * 2**30),
        ("5G", 5_000_000_000),
        ("5Gi", 5 * 2**30),
        ("400 mb", 400_000_000),
        ("1.5kB", 1500),
        (" 12 ", 12),
        ("12B", 12),
    ],
)
def test_sizes_are_read_in_every_spelling(text: str, nbytes: int) -> None:
    assert parse_size(text) == nbytes


@pytest.mark.parametrize("text", ["", "GB", "-5GB", "5XB", "5iB", "1e9", "5 G B", "\u0665B", "5Bs"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        parse_size(text)


@given(st.integers(0, 10**17))
def test_a_printed_size_is_read_back_within_half_a_percent(nbytes: int) -> None:
    assert abs(parse_size(format_size(nbytes)) - nbytes) <= nbytes * 0.00501
    assert abs(parse_size(format_memory(nbytes)) - nbytes) <= nbytes * 0.0056


@pytest.mark.parametrize(
    "seconds,text",
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.95, "10 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7385, "2 h 03 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_counts_have_their_thousands_apart() -> None:
    said = [counted(count, "tensor") for count in (0, 1, 999, 90_427, 1_000_000)]
    assert said == ["no tensors", "1 tensor", "999 tensors", "90 427 tensors", "1 000 000 tensors"]

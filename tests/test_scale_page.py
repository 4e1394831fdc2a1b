"""The page on scale holds the tables that its script makes of what was measured."""

import json
from typing import Any

import pytest

from tests.bench.scale_page import FOLDER, Rates, Work, chart, fits, held_table, page, seconds


def test_the_page_and_its_chart_are_fresh() -> None:
    growth = json.loads((FOLDER / "growth.json").read_text())
    text = (FOLDER / "scale.md").read_text()
    assert page(growth, text) == text
    assert (FOLDER / "growth.svg").read_text() == chart(growth)


@pytest.fixture
def growth() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "growth.json").read_text())
    return found


def test_what_was_measured_is_linear_in_time_where_the_files_fit_in_memory(
    growth: dict[str, Any],
) -> None:
    sizes = [each for each in growth["sizes"][1:] if fits(growth, each)]  # the first: starting
    paces = [each["wall_s"] / each["gb"] for each in sizes]
    assert len(paces) >= 2
    assert max(paces) < 1.5 * min(paces)


def test_what_was_measured_is_flat_in_memory(growth: dict[str, Any]) -> None:
    peaks = [each["peak_mib"] for each in growth["sizes"]]
    assert max(peaks) - min(peaks) < 16


def test_beyond_memory_it_is_no_slower_beside_a_plain_copy_than_within(
    growth: dict[str, Any],
) -> None:
    beside: dict[bool, list[float]] = {True: [], False: []}
    for each in growth["sizes"][1:]:
        if "copy_s" in each:
            beside[fits(growth, each)].append(each["wall_s"] / each["copy_s"])
    assert all(ratio < 1.25 * max(beside[True]) for ratio in beside[False])


def test_the_table_says_what_fits_in_memory_and_what_a_copy_takes() -> None:
    size = {"cpu_s": 2.0, "peak_mib": 292.0, "from_disk_gb": 0.0}
    near = {**size, "gb": 2.0, "wall_s": 1.5, "copy_s": 1.0}
    far = {**size, "gb": 8.0, "wall_s": 7.0, "copy_s": 7.0, "from_disk_gb": 9.31}
    document = {"cores": 2, "memory_gb": 25.3, "rounds": 3, "sizes": [near, near, far]}
    lines = held_table(document).splitlines()
    assert "| 1.00 s | 1.50 | 292 MiB | yes |" in lines[2]
    assert "| 7.00 s | 1.00 | 292 MiB | no; 9.3 GB read from the disk |" in lines[4]


def test_a_run_is_as_long_as_its_slowest_part_and_machines_share_it() -> None:
    rates = Rates(read=4, write=2, network=1, cores=8, add=1, dollars_an_hour=0)
    work = Work(read=8, write=8, cpu_s=8, network=1)
    parts = {"disk, reading": 2, "disk, writing": 4, "network": 1, "processors": 1}
    assert seconds(work, rates) == parts
    assert seconds(work, rates, 4) == {part: value / 4 for part, value in parts.items()}

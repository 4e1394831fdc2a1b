"""The page on scale holds the tables that its script makes of what was measured."""

import json

from tests.bench.scale_page import FOLDER, Rates, Work, chart, page, seconds


def test_the_page_and_its_chart_are_fresh() -> None:
    growth = json.loads((FOLDER / "growth.json").read_text())
    text = (FOLDER / "scale.md").read_text()
    assert page(growth, text) == text
    assert (FOLDER / "growth.svg").read_text() == chart(growth)


def test_what_was_measured_is_linear_in_time_and_flat_in_memory() -> None:
    sizes = json.loads((FOLDER / "growth.json").read_text())["sizes"][1:]
    paces = [each["wall_s"] / each["gb"] for each in sizes]
    peaks = [each["peak_mib"] for each in sizes]
    assert max(paces) < 1.5 * min(paces)
    assert max(peaks) - min(peaks) < 16


def test_a_run_is_as_long_as_its_slowest_part_and_machines_share_it() -> None:
    rates = Rates(read=4, write=2, network=1, cores=8, add=1, dollars_an_hour=0)
    work = Work(read=8, write=8, cpu_s=8, network=1)
    parts = {"disk, reading": 2, "disk, writing": 4, "network": 1, "processors": 1}
    assert seconds(work, rates) == parts
    assert seconds(work, rates, 4) == {part: value / 4 for part, value in parts.items()}

"""README and performance page say what the benchmark wrote, and of which versions."""

import json
import re
from typing import Any

import pytest
from figures import CONTESTS, EXACT, Run, filled, runs

from tests.bench.peers import ENVIRONMENTS
from tests.support.paths import ROOT

FOUND = json.loads((ROOT / "docs" / "pictures" / "benchmark.json").read_text("utf-8"))


def test_every_contest_of_the_benchmark_is_told() -> None:
    beside = [each["title"] for each in FOUND["contests"] if len(each["names"]) > 1]
    assert set(beside) - {*CONTESTS, *EXACT} == set()


def test_the_tools_are_told_with_the_versions_that_are_installed() -> None:
    pins = {pin for environment in ENVIRONMENTS.values() for pin in environment}
    names = {"FastChat": "fschat", "DeepSpeed": "deepspeed"}
    told = [words.beside for words in (*CONTESTS.values(), *EXACT.values())]
    versions = {pair for text in told for pair in re.findall(r"(\w+) (\d+\.\d[\d.]*)", text)}
    assert versions
    assert {f"{names.get(name, name)}=={version}" for name, version in versions} - pins == set()


def test_a_piece_is_made_anew_between_its_marks_and_nothing_else_is_touched() -> None:
    page = "before\n<!-- a -->\nold\n<!-- end of a -->\nafter\n"
    made = filled(page, {"a": "new", "b": "not here"})
    assert made == "before\n<!-- a -->\n\nnew\n\n<!-- end of a -->\nafter\n"
    assert filled(made, {"a": "new"}) == made


def test_a_mark_without_its_end_is_refused() -> None:
    with pytest.raises(ValueError, match="no <!-- end of a -->"):
        filled("<!-- a -->\nold\n", {"a": "new"})


def test_a_run_tells_medians_their_range_and_thousands_apart() -> None:
    def took(seconds: float, mib: int) -> dict[str, Any]:
        return {"wall_s": seconds, "peak_bytes": mib << 20}

    rounds = [(took(1, 60), took(4, 2000)), (took(2, 61), took(4, 2100)), (took(1, 62), took(5, 9))]
    title = "combine, three models"
    found = {"nbytes": {"full": 2e9}, "contests": [{"title": title, "rounds": rounds}]}
    (run,) = runs(found, CONTESTS)
    assert run.ratio == "0.25 (0.20 to 0.50)"
    assert (run.peak(0), run.peak(1)) == ("61 MiB", "2 000 MiB")
    assert Run("", "`cp -r x`", rounds, is_drawn=False).peak(1) == "–"

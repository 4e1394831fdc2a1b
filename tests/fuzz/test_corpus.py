"""What once showed a defect shows none any more, and the fuzzing of each reader does not rot."""

import random

import pytest

from tests.fuzz.child import CORPUS, judge, kept
from tests.fuzz.differences import Differs
from tests.fuzz.targets import TARGETS
from tests.support.pace import mostly_slow

KEPT = [(path.parent.name, path.name) for path in sorted(CORPUS.glob("*/*"))]
CHANGED = 30
"""Inputs made of each target's seeds."""


@pytest.mark.parametrize("target, name", KEPT)
def test_what_was_found_is_mended(target: str, name: str) -> None:
    judge(TARGETS[target].run, (CORPUS / target / name).read_bytes())


@pytest.mark.parametrize("name", mostly_slow(TARGETS, ["safetensors", "index"]))
def test_sound_inputs_are_accepted_and_changed_ones_accepted_or_refused_by_name(name: str) -> None:
    target, chance = TARGETS[name], random.Random(0)
    seeds = [*target.seeds()]
    assert any([judge(target.run, raw) for raw in (*seeds, *kept(name))])  # noqa: C419  (all of them)
    for _ in range(CHANGED):
        judge(target.run, target.mutator(chance.choice(seeds), chance))


def test_a_reader_that_fails_otherwise_is_noticed() -> None:
    def fails(_: bytes) -> None:
        raise Differs

    with pytest.raises(Differs):
        judge(fails, b"")


def test_the_corpus_is_small() -> None:
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 1_000_000

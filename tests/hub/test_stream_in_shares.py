"""What streams from the hub can be made in shares, each of which fetches what it reads."""

import os
from pathlib import Path

import pytest

from tests.support.delta_models import target_tensors, write_pair
from tests.support.folders import assert_same_bits, load
from tests.support.hub.client import Client
from tests.support.hub.people import Person
from tests.support.hub.server import Hub
from tests.support.ray_cluster import run_on
from weightsmith.ops.make_delta import make_delta

LINE = ["apply-delta", "--base", "org/base", "--delta", "me/tuned-delta", "--stream"]


@pytest.fixture
def person(hub: Hub, client: Client, tmp_path: Path) -> Person:
    base, target = write_pair(tmp_path / "pair", shards=3)
    make_delta(base, target, tmp_path / "pair" / "delta")
    hub.add("org/base", base)
    hub.add("me/tuned-delta", tmp_path / "pair" / "delta")
    return Person(hub, client)


def weights_in_cache(person: Person) -> list[Path]:
    return [*person.cache.rglob("*.safetensors")]


def test_shares_of_a_saved_plan_stream(person: Person) -> None:
    lines = [
        [*LINE, "--max-shard-size", "30000B", "--save-plan", "plan.json"],
        *(["run-plan", "plan.json", "--partition", f"{number}/2"] for number in (1, 2)),
        ["run-plan", "plan.json", "--finish"],
    ]
    for line in lines:
        code, _, err = person.run(*line)
        assert code == 0, err
    assert_same_bits(load(person.place / "tuned"), target_tensors())
    assert sorted(os.listdir(person.place)) == ["plan.json", "tuned"]  # noqa: PTH208
    assert not weights_in_cache(person)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_tasks_of_a_ray_cluster_stream(person: Person, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray has no wheel for this Python")
    target = person.place / "tuned"
    done = run_on(tmp_path, [{}], *LINE, "--target", str(target), env=person.env)
    assert done.returncode == 0, done.stderr
    assert_same_bits(load(target), target_tensors())
    assert not weights_in_cache(person)

"""Versions of a training run that lie on the hub are put onto a base like those in a directory."""

from pathlib import Path

import pytest

from tests.support.delta_models import trained, weights
from tests.support.disk_delta import publish
from tests.support.folders import assert_same_bits, load, write_model
from tests.support.hub.client import Client
from tests.support.hub.people import Person
from tests.support.hub.server import Hub

BASE, RUN, ONE = "org/base", "org/run", "org/one"
STEPS = [{"w": weights(300, 20), "model.norm.weight": weights(20, seed=3).abs() + 1}]
for number in (1, 2, 3):
    STEPS.append({name: trained(each, seed=number) for name, each in STEPS[-1].items()})


@pytest.fixture
def person(hub: Hub, client: Client, tmp_path: Path) -> Person:
    hub.add(BASE, write_model(tmp_path / "base", STEPS[0]))
    for version in (1, 2, 3):
        encoding = "overwrite" if version == 2 else "xor"
        publish(tmp_path / "run", version, *STEPS[version - 1 : version + 1], encoding=encoding)
    hub.add(RUN, tmp_path / "run")
    hub.add(ONE, tmp_path / "run" / "weight_v000001")
    return Person(hub, client)


@pytest.mark.parametrize("how", [(), ("--stream",)], ids=["fetched", "streamed"])
def test_the_newest_version_and_an_earlier_one(person: Person, how: tuple[str, ...]) -> None:
    line = ("apply-delta", "--base", BASE, "--delta", RUN, *how)
    code, _, err = person.run(*line, "--target", "newest")
    assert code == 0, err
    assert_same_bits(load(person.place / "newest"), STEPS[3])
    code, _, err = person.run(*line, "--target", "earlier", "--at", "2")
    assert code == 0, err
    assert_same_bits(load(person.place / "earlier"), STEPS[2])


@pytest.mark.parametrize("how", [(), ("--stream",)], ids=["fetched", "streamed"])
def test_a_repository_of_one_version(person: Person, how: tuple[str, ...]) -> None:
    line = ("apply-delta", "--base", BASE, "--delta", ONE, "--target", "out", *how)
    code, _, err = person.run(*line)
    assert code == 0, err
    assert_same_bits(load(person.place / "out"), STEPS[1])


def test_they_are_a_link_of_a_chain_and_are_told_for_what_they_are(person: Person) -> None:
    code, out, err = person.run("diff", f"{BASE}+{RUN}", f"{BASE}+{RUN}", "--offline")
    assert code == 3  # nothing of them is here yet
    code, out, err = person.run("download", RUN)
    assert (code, "3 of versions, 3 others" in err or "of versions" in err) == (0, True), err
    assert "tokenizer" not in err
    code, out, err = person.run("convert", f"{BASE}+{RUN}", "out")
    assert code == 0, err
    assert_same_bits(load(person.place / "out"), STEPS[3])
    code, out, err = person.run("inspect", RUN)
    assert (code, "3 versions, 1 to 3" in " ".join(out.split())) == (0, True), out


def test_one_that_is_missing_on_the_hub_is_named(person: Person, tmp_path: Path) -> None:
    for path in (tmp_path / "run" / "weight_v000002").iterdir():
        path.unlink()
    person.hub.add("org/gap", tmp_path / "run")
    code, _, err = person.run(
        "apply-delta", "--base", BASE, "--delta", "org/gap", "--target", "out"
    )
    assert code == 7
    assert "weight_v000002 is missing" in err
    assert not (person.place / "out").exists()

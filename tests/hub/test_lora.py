"""A LoRA on the hub, merged into a base on the hub."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.support.folders import assert_same_bits, load
from tests.support.hub.client import Client
from tests.support.hub.people import Person
from tests.support.hub.server import Hub

LINE = ["merge-lora", "--base", "org/base", "--lora", "someone/adapter", "--target", "merged"]


@pytest.fixture
def vector(vectors: Path) -> Path:
    return vectors / "lora" / "plain_fp16"


@pytest.fixture
def person(hub: Hub, client: Client, vector: Path) -> Person:
    hub.add("org/base", vector / "base")
    hub.add("someone/adapter", vector / "adapter")
    return Person(hub, client)


def test_both_are_fetched_and_merged(person: Person, vector: Path) -> None:
    code, out, err = person.run(*LINE, "--rounding", "peft")
    assert (code, out.splitlines()[0]) == (0, f"done  {person.place / 'merged'}"), err
    expected = load_file(vector / "expected" / "expected.safetensors")
    assert_same_bits(load(person.place / "merged"), expected)


def test_a_dry_run_leaves_no_weights_behind(person: Person) -> None:
    code, out, err = person.run(*LINE, "--dry-run", "--json")
    assert code == 0, err
    tensors = json.loads(out)["plan"]["shards"][0]["tensors"]
    assert sum(tensor["codec"] == "lora@1" for tensor in tensors) == 4
    assert not person.weights_in_cache()
    assert not list(person.place.iterdir())

"""A LoRA on the hub, merged into a base on the hub."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.support.folders import assert_same_bits, load
from tests.support.hub.client import Client
from tests.support.hub.people import Person
from tests.support.hub.server import Hub
from tests.support.vector_sums import expected_sums, tensor_sums
from weightsmith.ops.convert import convert

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


@pytest.fixture
def sharded(person: Person, vectors: Path, tmp_path: Path) -> Path:
    """A quantised base of several files on the hub, and an adapter of it; the vector."""
    vector = vectors / "merge" / "q_fp8_block32"
    convert(vector / "base", tmp_path / "sharded", max_shard_nbytes=15_000)
    (tmp_path / "sharded" / "weightsmith.json").unlink()
    person.hub.add("org/quantised", tmp_path / "sharded")
    person.hub.add("someone/qlora", vector / "adapter")
    return vector


@pytest.mark.slow
def test_a_base_is_streamed_file_by_file(person: Person, sharded: Path) -> None:
    line = ["merge-lora", "--base", "org/quantised", "--lora", "someone/qlora", "-o", "merged"]
    dry = person.run(*line, "--stream", "--dry-run", "--json")
    assert dry[0] == 0, dry
    needs = json.loads(dry[1])["needs"]
    assert 0 < needs["streamed_nbytes"] < needs["disk_nbytes"]
    assert person.weights_in_cache() == []
    code, _, err = person.run(*line, "--stream", "--rounding", "peft")
    assert code == 0, err
    assert tensor_sums(person.place / "merged") == expected_sums(sharded, "expected")
    # The adapter alone, which is small, is in the hub's cache; the base is nowhere any more.
    assert all("qlora" in str(path) for path in person.weights_in_cache())
    assert [path.name for path in person.place.iterdir()] == ["merged"]


def test_a_source_is_streamed_into_a_conversion(person: Person, sharded: Path) -> None:
    code, _, err = person.run("convert", "org/quantised", "floats", "--dequantize", "--stream")
    assert code == 0, err
    found, expected = tensor_sums(person.place / "floats"), expected_sums(sharded, "dequantised")
    assert {name: found[name] for name in expected} == expected
    assert person.weights_in_cache() == []
    assert [path.name for path in person.place.iterdir()] == ["floats"]


def test_a_source_that_is_streamed_is_not_checked_as_a_whole(person: Person, sharded: Path) -> None:
    code, _, err = person.run("convert", "org/quantised", "copy", "--stream", "--check-source")
    assert code == 2
    assert "--check-source" in err

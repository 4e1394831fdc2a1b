"""The mission's line, word for word, from an empty cache to a verified model."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.folders import assert_same_bits, load, write_model
from tests.support.hub.client import Client
from tests.support.hub.people import ENDS, Person
from tests.support.hub.server import Hub

BASE, DELTA = "huggyllama/llama-7b", "lmsys/vicuna-7b-delta-v1.1"
LINE = ["apply-delta", "--base", "llama-7b", "--delta", DELTA, "--low-cpu-mem"]


@pytest.fixture
def person(hub: Hub, client: Client, vectors: Path) -> Person:
    """Somebody with an empty cache, on a day when the hub holds both repositories."""
    hub.add(BASE, vectors / "vicuna_v1_1" / "base")
    hub.add(DELTA, vectors / "vicuna_v1_1" / "delta")
    return Person(hub, client)


def expected(vectors: Path) -> dict[str, object]:
    wanted = load_file(vectors / "vicuna_v1_1" / "expected" / "expected.safetensors")
    return {name: each for name, each in wanted.items() if "inv_freq" not in name}


def test_one_command_from_an_empty_cache_to_a_verified_model(person: Person, vectors: Path) -> None:
    code, out, err = person.run(*LINE)
    assert code == 0, err
    assert f"llama-7b stands for {BASE}" in err
    assert "verified" in out
    target = person.place / "vicuna-7b-v1.1"
    assert_same_bits(load(target), expected(vectors))  # type: ignore[arg-type]
    manifest = json.loads((target / "weightsmith.json").read_bytes())
    assert manifest["release"] == "vicuna-7b-v1.1"
    origins = {role: each.partition("@")[0] for role, each in manifest["origins"].items()}
    assert origins == {"base": BASE, "delta": DELTA}
    assert [path.name for path in person.place.iterdir()] == ["vicuna-7b-v1.1"]
    # Again, without a network: all of it is there.
    code, out, err = person.run(*LINE, "--offline")
    assert (code, "already done" in out) == (0, True), err


def test_a_dry_run_reads_headers_and_fetches_no_weights(person: Person) -> None:
    code, out, err = person.run(*LINE, "--dry-run")
    assert code == 0, err
    assert "21 tensors" in out
    assert "nothing was written" in out
    assert [*person.place.iterdir()] == []
    assert person.weights_in_cache() == []
    whole = [r for r in person.hub.ranges("pytorch_model-00001-of-00002.bin") if r is None]
    assert whole == []
    assert "downloading" not in err
    assert "not used: .cache" not in err


def test_a_dry_run_needs_what_the_run_itself_would(person: Person) -> None:
    """Without --stream all of both sources in the hub's cache, and none of it twice."""

    def needs(*more: str) -> dict[str, int]:
        code, out, err = person.run(*LINE, "--dry-run", "--json", *more)
        assert code == 0, err
        found: dict[str, int] = json.loads(out)["needs"]
        return found

    dry, streamed = needs(), needs("--stream")
    code, _, err = person.run("download", BASE)
    assert code == 0, err
    half = needs()
    assert person.run("download", DELTA)[0] == 0
    here = needs()
    cached = sum(each.stat().st_size for each in person.cache.glob("*/blobs/*"))
    assert (here["fetched_nbytes"], dry["fetched_nbytes"]) == (0, cached)
    assert 0 < half["fetched_nbytes"] < cached
    assert dry["disk_nbytes"] - here["disk_nbytes"] == cached
    assert (dry["streamed_nbytes"], streamed["fetched_nbytes"]) == (0, 0)
    assert 0 < streamed["streamed_nbytes"] < cached


def test_streaming_keeps_no_input_and_gives_the_same_model(person: Person, vectors: Path) -> None:
    code, _, err = person.run(*LINE, "--stream", "--max-shard-size", "30kB")
    assert code == 0, err
    assert "for inputs while they stream" in err
    assert_same_bits(load(person.place / "vicuna-7b-v1.1"), expected(vectors))  # type: ignore[arg-type]
    assert person.weights_in_cache() == []
    assert [path.name for path in person.place.iterdir()] == ["vicuna-7b-v1.1"]


def test_what_was_streamed_is_not_fetched_again_to_be_compared(
    person: Person, vectors: Path
) -> None:
    base = str(vectors / "vicuna_v1_1" / "base")
    line = ["apply-delta", "--base", base, "--delta", DELTA, "--stream"]
    code, _, err = person.run(*line)
    assert code == 0, err
    fetched = person.hub.ranges("pytorch_model-00001-of-00002.bin").count(None)
    code, out, err = person.run(*line)
    assert (code, "already done" in out) == (0, True), err
    assert f"not compared with its inputs: 21 tensors, for {DELTA} would" in " ".join(err.split())
    assert person.hub.ranges("pytorch_model-00001-of-00002.bin").count(None) == fetched


def test_an_interrupted_stream_goes_on(person: Person, vectors: Path) -> None:
    ended = person.start(*LINE, "--stream", "--max-shard-size", "30kB", script=ENDS)
    ended.communicate(timeout=240)
    assert ended.returncode == 9
    code, _, err = person.run(*LINE, "--stream", "--max-shard-size", "30kB")
    assert code == 0, err
    assert "continuing" in err
    assert_same_bits(load(person.place / "vicuna-7b-v1.1"), expected(vectors))  # type: ignore[arg-type]
    assert [path.name for path in person.place.iterdir()] == ["vicuna-7b-v1.1"]


def test_inspect_reads_headers_and_fetches_nothing(person: Person) -> None:
    code, out, err = person.run("inspect", DELTA)
    assert code == 0, err
    assert "DELTA, NOT A MODEL" in out
    assert "Vicuna 7B v1.1" in out
    assert not person.cache.exists() or person.weights_in_cache() == []


def test_the_table_of_a_torch_file_takes_a_few_requests(person: Person, tmp_path: Path) -> None:
    weights = {f"layers.{n}.weight": torch.full((256, 160), float(n)).half() for n in range(40)}
    person.hub.add("org/model", write_model(tmp_path / "model", weights, suffix="bin"))
    code, out, err = person.run("inspect", "org/model", "--json")
    assert code == 0, err
    assert json.loads(out)["tensors"] == 40
    assert 0 < len(person.hub.ranges("pytorch_model.bin")) <= 5
    code, _, err = person.run("convert", "org/model", "./converted")
    assert code == 0, err
    assert_same_bits(load(person.place / "converted"), weights)


def test_a_difference_is_told_of_sources_on_the_hub(person: Person) -> None:
    code, out, err = person.run("diff", BASE, f"{BASE}@main")
    assert (code, "the same" in out) == (0, True), err
    assert "downloading: 121 kB" in err
    before = person.hub.requests.copy()
    code, out, err = person.run("diff", BASE, DELTA, "--offline", "-q")
    assert code == 3, err
    code, out, err = person.run("diff", BASE, BASE, "--offline", "-q")
    assert (code, out) == (0, "same\n"), err
    assert person.hub.requests == before


def test_convert_takes_a_source_from_the_hub(person: Person) -> None:
    code, _, err = person.run("convert", BASE, "./converted")
    assert code == 0, err
    assert (person.place / "converted" / "model.safetensors").is_file()


def test_an_unknown_alias_offers_the_nearest(person: Person) -> None:
    code, _, err = person.run("apply-delta", "--base", "lama-7b", "--delta", DELTA)
    assert code == 3
    assert "llama-7b" in err


def test_the_base_need_not_be_named(person: Person) -> None:
    code, _, err = person.run("apply-delta", "--delta", DELTA)
    assert code == 0, err
    assert "the base is llama-7b, as the delta or the catalogue names it" in err
    assert (person.place / "vicuna-7b-v1.1" / "weightsmith.json").is_file()

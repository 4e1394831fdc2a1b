"""Exact deltas on the hub: applied, streamed, looked into and checked."""

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch

from tests.support.delta_models import base_tensors, target_tensors, write_pair
from tests.support.folders import assert_same_bits, contents, load, staging, write_model
from tests.support.hub.client import Client
from tests.support.hub.people import ENDS, Person
from tests.support.hub.server import Hub, Request
from weightsmith.ops.make_delta import make_delta

BASE, DELTA = "org/base", "me/tuned-delta"
LINE = ["apply-delta", "--base", BASE, "--delta", DELTA]
FILES = 3


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``base``, ``target`` and the ``delta`` between them."""
    folder = tmp_path_factory.mktemp("pair")
    base, target = write_pair(folder, shards=FILES)
    make_delta(base, target, folder / "delta")
    return folder


@pytest.fixture
def person(hub: Hub, client: Client, pair: Path) -> Person:
    hub.add(BASE, pair / "base")
    hub.add(DELTA, pair / "delta")
    return Person(hub, client)


def weights_in_cache(person: Person) -> list[str]:
    return sorted(path.name for path in person.cache.rglob("*.safetensors"))


def asks_for_whole_weights(request: Request) -> bool:
    """Whether it is for a weight file from its first byte to its last."""
    is_weights = request.path.startswith("/cdn/") and request.path.endswith(".safetensors")
    return is_weights and request.range is None


def whole_weights_asked_for(person: Person) -> list[str]:
    return [each.path for each in person.hub.requests if asks_for_whole_weights(each)]


def spooled(person: Person) -> dict[str, set[str]]:
    """By weight file, which ones lie in staging when it is asked for, from now on."""
    inputs = staging(person.place / "tuned") / "inputs"
    seen: dict[str, set[str]] = {}

    def look(request: Request) -> None:
        if asks_for_whole_weights(request):
            there = {name for *_, names in os.walk(inputs) for name in names}
            seen.setdefault(request.path.rpartition("/")[2], there)

    person.hub.before_answer = look
    return seen


def test_the_targets_files_come_back_byte_for_byte(person: Person, pair: Path) -> None:
    code, _, err = person.run(*LINE)
    assert code == 0, err
    assert contents(pair / "target").items() <= contents(person.place / "tuned").items()
    manifest = json.loads((person.place / "tuned" / "weightsmith.json").read_bytes())
    origins = {role: each.partition("@")[0] for role, each in manifest["origins"].items()}
    assert origins == {"base": BASE, "delta": DELTA}
    code, out, err = person.run(*LINE, "--offline")
    assert (code, "already done" in out) == (0, True), err


def test_a_delta_on_a_delta_finds_both_and_their_base(
    person: Person, pair: Path, tmp_path: Path
) -> None:
    tensors = {name: each + 1 for name, each in load(pair / "target").items()}
    last = write_model(tmp_path / "last", tensors)
    line = ["make-delta", "--base", f"{BASE}+{DELTA}", "--target", str(last), "--delta", "second"]
    code, _, err = person.run(*line)
    assert code == 0, err
    code, _, err = person.run("apply-delta", "--delta", "second", "--target", "out", "--offline")
    assert code == 0, err
    assert contents(last).items() <= contents(person.place / "out").items()


def test_planning_a_delta_of_models_on_the_hub_fetches_no_weights(
    person: Person, pair: Path
) -> None:
    person.hub.add("me/tuned", pair / "target")
    line = ["make-delta", "--base", BASE, "--target", "me/tuned", "--output", "delta"]
    code, out, err = person.run(*line, "--dry-run", "--json")
    assert code == 0, err
    assert (weights_in_cache(person), whole_weights_asked_for(person)) == ([], [])
    assert [*person.place.iterdir()] == []
    planned = json.loads(out)
    weights = [path for role in ("base", "target") for path in (pair / role).glob("*.safetensors")]
    assert planned["needs"]["fetched_nbytes"] >= sum(path.stat().st_size for path in weights)
    code, out, err = person.run(*line, "--dry-run")
    assert "tensors will be restored" not in err + out
    assert person.run(*line)[0] == 0
    made = json.loads((person.place / "delta" / "weightsmith.json").read_bytes())
    assert (
        made["fingerprint"]
        == json.loads((pair / "delta" / "weightsmith.json").read_bytes())["fingerprint"]
    )


@pytest.mark.parametrize("dtype", [[], ["--dtype", "float32"]], ids=["exact", "cast"])
def test_streamed_no_input_stays_longer_than_it_is_read(
    person: Person, pair: Path, dtype: list[str]
) -> None:
    seen = spooled(person)
    # With more workers, one may be at its tensor for as long as the others do all the rest.
    code, _, err = person.run(*LINE, "--stream", "--workers", "1", *dtype)
    assert code == 0, err
    assert "for inputs while they stream" in err
    made = person.place / "tuned"
    if dtype:
        tensors = target_tensors().items()
        wide = {n: t.float() if t.is_floating_point() else t for n, t in tensors}
        assert_same_bits(load(made), wide)
    else:
        assert contents(pair / "target").items() <= contents(made).items()
    stems = ("model", "delta")
    names = {f"{stem}-{n:05d}-of-00003.safetensors" for stem in stems for n in (1, 2, 3)}
    assert seen.keys() == names
    assert "delta-00001-of-00003.safetensors" not in seen["delta-00003-of-00003.safetensors"]
    assert len(whole_weights_asked_for(person)) == len(names)
    assert weights_in_cache(person) == []
    assert [path.name for path in person.place.iterdir()] == ["tuned"]


def test_a_base_of_this_machine_takes_a_streamed_delta(person: Person, pair: Path) -> None:
    line = ["apply-delta", "--base", str(pair / "base"), "--delta", DELTA, "--stream"]
    code, _, err = person.run(*line)
    assert code == 0, err
    assert contents(pair / "target").items() <= contents(person.place / "tuned").items()
    assert weights_in_cache(person) == []


@pytest.mark.slow
@pytest.mark.sampled(1)
@pytest.mark.parametrize("dtype", [[], ["--dtype", "float16"]], ids=["exact", "cast"])
def test_an_interrupted_stream_goes_on(person: Person, pair: Path, dtype: list[str]) -> None:
    line = [*LINE, "--stream", "--max-shard-size", "2MB", *dtype]
    ended = person.start(*line, script=ENDS)
    ended.communicate(timeout=240)
    assert ended.returncode == 9
    code, out, err = person.run(*line)
    assert code == 0, err
    assert "continuing: 1 of" in err
    assert "1 kept from before" in out
    wanted = target_tensors()
    if dtype:
        wanted = {n: t.half() if t.is_floating_point() else t for n, t in wanted.items()}
    assert_same_bits(load(person.place / "tuned"), wanted)
    assert [path.name for path in person.place.iterdir()] == ["tuned"]


@pytest.mark.parametrize("more", [[], ["--stream"], ["--dtype", "float32"]], ids=str)
def test_a_dry_run_reads_headers_and_fetches_no_weights(person: Person, more: list[str]) -> None:
    code, out, err = person.run(*LINE, "--dry-run", *more)
    assert code == 0, err
    assert "nothing was written" in out
    assert "13 tensors" in out or "12 tensors" in out
    assert whole_weights_asked_for(person) == []
    assert [*person.place.iterdir()] == []
    assert weights_in_cache(person) == []


@pytest.mark.parametrize("more", [["--dry-run"], ["--stream"]], ids=str)
def test_another_base_is_refused_before_any_weights_are_fetched(
    person: Person, tmp_path: Path, more: list[str]
) -> None:
    name = "model.layers.0.norm.weight"
    other = base_tensors() | {name: torch.full((64,), 0.5, dtype=torch.bfloat16)}
    person.hub.add("org/other", write_model(tmp_path / "other", other))
    code, _, err = person.run("apply-delta", "--base", "org/other", "--delta", DELTA, *more)
    assert code == 7, err
    assert name in err
    assert whole_weights_asked_for(person) == []


def test_another_base_that_looks_alike_is_found_while_it_streams(
    person: Person, tmp_path: Path
) -> None:
    other = base_tensors()
    other["model.layers.0.up.weight"].view(torch.int16)[5, 5] ^= 1
    person.hub.add("org/other", write_model(tmp_path / "other", other))
    line = ["apply-delta", "--base", "org/other", "--delta", DELTA, "--stream"]
    for dtype in ([], ["--dtype", "float32"]):
        code, _, err = person.run(*line, "--restart", *dtype)
        assert code == 7, err
        assert "model.layers.0.up.weight" in err
        assert not (person.place / "tuned").exists()


def test_a_base_whose_main_has_moved_is_told_by_its_commit(
    hub: Hub, client: Client, pair: Path, tmp_path: Path
) -> None:
    commit = hub.add(BASE, pair / "base")
    make_delta(pair / "base", pair / "target", tmp_path / "d", base_id=f"{BASE}@{commit}")
    hub.add(DELTA, tmp_path / "d")
    moved = base_tensors()
    moved["model.layers.0.up.weight"].view(torch.int16)[5, 5] ^= 1
    hub.add(BASE, write_model(tmp_path / "moved", moved, shards=FILES))
    person = Person(hub, client)
    code, _, err = person.run(*LINE)
    assert code == 7, err
    assert f"--base {BASE}@{commit}" in err
    assert [*person.place.iterdir()] == []
    code, _, err = person.run("apply-delta", "--delta", DELTA)  # the delta says of what it was made
    assert code == 0, err
    assert contents(pair / "target").items() <= contents(person.place / "tuned").items()


def test_inspect_reads_headers_and_fetches_no_weights(person: Person) -> None:
    code, out, err = person.run("inspect", DELTA)
    assert code == 0, err
    assert "DELTA, NOT A MODEL" in out
    assert "weightsmith made it" in " ".join(out.split())
    assert whole_weights_asked_for(person) == []
    assert weights_in_cache(person) == []


def test_verify_checks_what_it_makes_with_its_base_and_what_it_can_without(person: Person) -> None:
    for more, answered in (["--base", BASE], True), ([], False):
        _, out, err = person.run("verify", DELTA, *more, "--json")
        checks = {check["name"]: check["verdict"] for check in json.loads(out)["checks"]}
        assert checks["digests"] == "pass", err
        assert ("base" not in checks) == answered
        assert [*person.place.iterdir()] == []


def test_download_brings_the_delta_and_its_record(person: Person, pair: Path) -> None:
    code, _, err = person.run("download", DELTA, "--local-dir", "here")
    assert code == 0, err
    there = {name: raw for name, raw in contents(person.place / "here").items() if "/" not in name}
    digests = {name: hashlib.sha256(raw).hexdigest() for name, raw in there.items()}
    wanted = contents(pair / "delta")
    assert digests == {name: hashlib.sha256(raw).hexdigest() for name, raw in wanted.items()}


def test_a_delta_that_changes_nothing_has_no_weights_and_is_applied(
    hub: Hub, client: Client, pair: Path, tmp_path: Path
) -> None:
    make_delta(pair / "base", Path(write_model(tmp_path / "same", base_tensors())), tmp_path / "d")
    hub.add(BASE, pair / "base")
    hub.add(DELTA, tmp_path / "d")
    person = Person(hub, client)
    code, _, err = person.run(*LINE, "--stream")
    assert code == 0, err
    made, wanted = (f / "model.safetensors" for f in (person.place / "tuned", tmp_path / "same"))
    assert made.read_bytes() == wanted.read_bytes()

"""From base and delta alone the target comes back, tensors bit for bit and files byte for byte."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from tests.support.delta_models import (
    SIDECARS,
    base_tensors,
    target_tensors,
    trained,
    weights,
    write_pair,
)
from tests.support.folders import assert_same_bits, bits, contents, load, write_model
from weightsmith.engine.options import Options
from weightsmith.errors import OtherDeltaThere
from weightsmith.ops.apply_delta import apply_delta, plan_apply_delta
from weightsmith.ops.make_delta import MadeDelta, make_delta
from weightsmith.plan.exact_record import DeltaRecord
from weightsmith.plan.model import Plan, RestoredPlan
from weightsmith.plan.shards import MAX_SHARD_NBYTES

DELTA_FILES = {"delta.safetensors.index.json", "weightsmith.json"}


def record_of(made: MadeDelta) -> DeltaRecord:
    assert made.manifest.delta is not None
    return DeltaRecord.from_document(made.manifest.delta)


@pytest.mark.parametrize("shards", [1, 3])
def test_the_targets_files_come_back_byte_for_byte(tmp_path: Path, shards: int) -> None:
    base, target = write_pair(tmp_path, shards=shards)
    make_delta(base, target, tmp_path / "delta")
    apply_delta(base, tmp_path / "delta", target=tmp_path / "out")
    restored = contents(tmp_path / "out")
    assert restored.pop("weightsmith.json")
    assert restored == contents(target)


def test_the_plan_of_restoring_is_json_in_and_out(tmp_path: Path) -> None:
    base, target = write_pair(tmp_path)
    make_delta(base, target, tmp_path / "delta")
    plan = plan_apply_delta(base, tmp_path / "delta", target=tmp_path / "out").plan
    assert Plan.from_document(json.loads(plan.to_bytes())) == plan
    assert all(isinstance(shard, RestoredPlan) for shard in plan.shards)


def test_headers_that_we_would_write_otherwise_come_back(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", {"a": weights(10), "b": weights(20)})
    target = write_model(tmp_path / "target", {"a": weights(10, seed=1), "b": weights(20, seed=2)})
    path = target / "model.safetensors"
    raw = path.read_bytes()
    size = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:size])
    header["__metadata__"] = {"trained": "2024", "format": "pt"}
    text = b"  ".join([json.dumps(header, indent=2).encode(), b"   "])
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[size:])
    make_delta(base, target, tmp_path / "delta")
    apply_delta(base, tmp_path / "delta", target=tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == path.read_bytes()


def test_files_that_not_every_system_can_hold_come_back_as_tensors(tmp_path: Path) -> None:
    """Two names that differ in case only, which no record may give."""
    base, target = write_pair(tmp_path)
    index = target / "model.safetensors.index.json"
    for number, name in ((1, "a.safetensors"), (2, "A.safetensors")):
        old = f"model-0000{number}-of-00002.safetensors"
        (target / old).rename(target / name)
        index.write_text(index.read_text().replace(old, name))
    make_delta(base, target, tmp_path / "delta")
    apply_delta(base, tmp_path / "delta", target=tmp_path / "out")
    assert_same_bits(load(tmp_path / "out"), load(target))


def test_an_index_that_was_changed_makes_another_delta(tmp_path: Path) -> None:
    base, target = write_pair(tmp_path)
    make_delta(base, target, tmp_path / "delta")
    index = target / "model.safetensors.index.json"
    index.write_text(index.read_text() + "\n")
    with pytest.raises(OtherDeltaThere, match="another plan"):
        make_delta(base, target, tmp_path / "delta")


def test_a_limit_on_shards_lays_the_tensors_out_anew(tmp_path: Path) -> None:
    base, target = write_pair(tmp_path, shards=1)
    make_delta(base, target, tmp_path / "delta")
    apply_delta(base, tmp_path / "delta", target=tmp_path / "out", max_shard_nbytes=1_000_000)
    assert len([*(tmp_path / "out").glob("model-*.safetensors")]) > 1
    assert_same_bits(load(tmp_path / "out"), target_tensors())


def test_the_usual_limit_lays_them_out_anew_too_where_it_is_given(tmp_path: Path) -> None:
    base, target = write_pair(tmp_path, shards=3)
    make_delta(base, target, tmp_path / "delta")
    out = tmp_path / "out"
    apply_delta(base, tmp_path / "delta", target=out, max_shard_nbytes=MAX_SHARD_NBYTES)
    assert [path.name for path in out.glob("*.safetensors")] == ["model.safetensors"]
    assert_same_bits(load(out), target_tensors())


def test_torch_files_come_back_as_tensors(tmp_path: Path) -> None:
    base, target = write_pair(tmp_path, suffix="bin")
    made = make_delta(base, target, tmp_path / "delta")
    assert not record_of(made).files
    apply_delta(base, tmp_path / "delta", target=tmp_path / "out")
    assert_same_bits(load(tmp_path / "out"), target_tensors())
    for name, content in SIDECARS.items():
        assert (tmp_path / "out" / name).read_bytes() == content


def test_tied_tensors_are_stored_once(tmp_path: Path) -> None:
    embedding = trained(base_tensors()["model.embed_tokens.weight"])
    base = write_model(
        tmp_path / "base", {"model.embed_tokens.weight": weights(400, 64)}, suffix="bin"
    )
    tied = {"lm_head.weight": embedding, "model.embed_tokens.weight": embedding}
    target = write_model(tmp_path / "target", tied, suffix="bin")
    made = make_delta(base, target, tmp_path / "delta")
    assert len(made.manifest.tensors) == 1
    assert made.nbytes < 0.6 * embedding.nbytes
    apply_delta(base, tmp_path / "delta", target=tmp_path / "out")
    assert_same_bits(load(tmp_path / "out"), tied)


def test_what_the_base_has_already_is_stored_as_nothing(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", base_tensors())
    target = write_model(tmp_path / "target", base_tensors())
    made = make_delta(base, target, tmp_path / "delta")
    assert contents(tmp_path / "delta").keys() == {"config.json", *DELTA_FILES}
    assert made.nbytes == 0
    apply_delta(base, tmp_path / "delta", target=tmp_path / "out")
    restored, original = (folder / "model.safetensors" for folder in (tmp_path / "out", target))
    assert restored.read_bytes() == original.read_bytes()


@pytest.mark.parametrize("name", ["vicuna_v1_1", "vicuna_v0", "alpaca_wdiff"])
def test_releases_of_2023_come_back_where_their_own_deltas_lose_bits(
    vectors: Path, tmp_path: Path, name: str
) -> None:
    with safe_open(vectors / name / "target" / "expected.safetensors", framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    target = write_model(tmp_path / "target", tensors)
    make_delta(vectors / name / "base", target, tmp_path / "delta")
    apply_delta(vectors / name / "base", tmp_path / "delta", target=tmp_path / "out")
    restored, original = (folder / "model.safetensors" for folder in (tmp_path / "out", target))
    assert restored.read_bytes() == original.read_bytes()


def test_the_same_delta_comes_of_any_number_of_workers(tmp_path: Path) -> None:
    base, target = write_pair(tmp_path)
    make_delta(base, target, tmp_path / "one", options=Options(workers=1))
    make_delta(base, target, tmp_path / "four", options=Options(workers=4))
    make_delta(base, target, tmp_path / "low", options=Options(low_cpu_mem=True))
    assert contents(tmp_path / "one") == contents(tmp_path / "four") == contents(tmp_path / "low")


def test_the_record_names_hashes_that_anyone_can_check(tmp_path: Path) -> None:
    base, target = write_pair(tmp_path)
    made = make_delta(base, target, tmp_path / "delta", base_id="org/base@abc")
    for file in record_of(made).files:
        raw = (target / file.name).read_bytes()
        assert file.sha256 == hashlib.sha256(raw).hexdigest()
        assert (file.size, file.header) == (len(raw), raw[: len(file.header)])
    document = json.loads((tmp_path / "delta" / "weightsmith.json").read_bytes())
    assert document["delta"]["base"]["id"] == "org/base@abc"
    assert record_of(made).base.fingerprint == document["delta"]["base"]["fingerprint"]
    other = make_delta(target, base, tmp_path / "back")
    assert record_of(other).base.fingerprint == record_of(made).fingerprint


def test_a_delta_is_never_larger_than_the_target_by_more_than_a_thousandth(tmp_path: Path) -> None:
    noise = weights(1_000_000, dtype=torch.float32).view(torch.int8)
    draw = np.random.default_rng(0)
    tensors = {
        f"model.layers.{n}.weight": torch.frombuffer(
            bytearray(draw.bytes(1_000_000)), dtype=torch.int8
        ).reshape(1000, 1000)
        for n in range(4)
    }
    base = write_model(tmp_path / "base", {"w": noise})
    target = write_model(tmp_path / "target", tensors)
    made = make_delta(base, target, tmp_path / "delta")
    assert made.nbytes < 1.001 * (target / "model.safetensors").stat().st_size


def test_transformers_does_not_take_a_delta_for_a_model(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    base, target = write_pair(tmp_path, shards=1)
    make_delta(base, target, tmp_path / "delta")
    with pytest.raises(OSError, match="no file named"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "delta")


def test_the_safetensors_library_reads_a_deltas_files(tmp_path: Path) -> None:
    base, target = write_pair(tmp_path)
    made = make_delta(base, target, tmp_path / "delta")
    found = load(tmp_path / "delta")
    assert found.keys() == made.manifest.tensors.keys()
    assert all(bytes(bits(each)[:6].tolist()) == b"exact@" for each in found.values())

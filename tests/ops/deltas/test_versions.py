"""Versions that training publishes are folded onto their base, and what breaks them is named."""

import json
import os
import resource
import shutil
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import weightsmith
from tests.support.disk_delta import Weights, apply, publish
from tests.support.folders import write_model
from weightsmith.codecs.checksums import ALGORITHMS
from weightsmith.codecs.disk_delta import Packer
from weightsmith.errors import (
    NoBase,
    NothingChanged,
    NoWeights,
    OptionMeaningless,
    TensorsDoNotFit,
    VersionsBroken,
    WeightsmithError,
)
from weightsmith.sources.disk_delta import DiskDelta
from weightsmith.sources.recognise import recognise

write = partial(write_model, config={"model_type": "x"})


def step(weights: Weights, seed: int) -> Weights:
    """A few elements of each matrix are others; one tensor is the same, one all new."""
    torch.manual_seed(seed)
    after = {name: tensor.clone() for name, tensor in weights.items()}
    flat = after["big"].view(-1)
    flat[torch.randint(0, flat.numel(), (300,))] += 0.25
    after["small"] = torch.randn(7)
    if seed % 2:
        after["odd"].view(-1)[-1] = seed
    return after


@pytest.fixture(scope="module")
def models() -> list[Weights]:
    """Version 0 to 3; one tensor has two spans and a little."""
    torch.manual_seed(0)
    first: Weights = {
        "big": torch.randn(1100, 2000).bfloat16(),
        "odd": torch.arange(9, dtype=torch.int8).reshape(3, 3),
        "same": torch.randn(40, 4).half(),
        "small": torch.randn(7),
    }
    found = [first]
    for seed in (1, 2, 3):
        found.append(step(found[-1], seed))
    return found


Run = tuple[Path, Path]


@pytest.fixture
def run(models: list[Weights], tmp_path: Path) -> Run:
    """A base and three versions."""
    base = write(tmp_path / "base", models[0])
    for number in (1, 2, 3):
        encoding = "overwrite" if number == 2 else "xor"
        publish(
            tmp_path / "run",
            number,
            models[number - 1],
            models[number],
            encoding=encoding,
            algorithm=ALGORITHMS[number % 3],
        )
    return base, tmp_path / "run"


def assert_equal(folder: Path, weights: Weights) -> None:
    found = load_file(folder / "model.safetensors")
    assert found.keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8)), name


@pytest.mark.sampled(3)
@pytest.mark.parametrize("encoding, algorithm", [*product(("xor", "overwrite"), ALGORITHMS)])
def test_versions_of_another_writer_are_folded_in_one_pass(
    encoding: str, algorithm: str, models: list[Weights], tmp_path: Path
) -> None:
    base = write(tmp_path / "base", models[0])
    for number in (1, 2, 3):
        before, after = models[number - 1], models[number]
        publish(tmp_path / "run", number, before, after, encoding=encoding, algorithm=algorithm)
    done = weightsmith.apply_delta(base, tmp_path / "run", target=tmp_path / "new")
    assert_equal(done.target, models[3])
    weightsmith.apply_delta(base, tmp_path / "run", at=2, target=tmp_path / "two")
    assert_equal(tmp_path / "two", models[2])
    assert (tmp_path / "two" / "config.json").exists()


def test_a_directory_of_versions_is_a_link_of_a_chain_as_well(
    run: Run, models: list[Weights], tmp_path: Path
) -> None:
    base, versions = run
    write(tmp_path / "last", models[3])
    assert isinstance(recognise(versions), DiskDelta)
    assert weightsmith.diff(f"{base}+{versions}", tmp_path / "last").equal
    with pytest.raises(NoWeights) as caught:
        weightsmith.diff(versions, base)
    assert f"BASE+{versions}" in caught.value.hint_text
    each = "+".join(str(versions / f"weight_v{number:06d}") for number in (1, 2, 3))
    assert weightsmith.diff(f"{base}+{each}", tmp_path / "last").equal


def test_versions_go_onto_another_delta_and_one_is_named_that_is_left_out(
    run: Run, models: list[Weights], tmp_path: Path
) -> None:
    base, versions = run
    older = write(tmp_path / "older", step(models[0], 7))
    weightsmith.make_delta(older, base, tmp_path / "d")
    done = weightsmith.apply_delta(older, [tmp_path / "d", versions], target=tmp_path / "new")
    assert_equal(done.target, models[3])
    with pytest.raises(NoBase):
        weightsmith.apply_delta(None, [versions, tmp_path / "d"], target=tmp_path / "x")


@pytest.mark.parametrize(
    "given", [{"portable": True}, {"base_id": "org/base"}, {"adapter": "x"}, {"all_sidecars": True}]
)
def test_what_a_version_has_no_place_for_is_refused(
    given: dict[str, Any], run: Run, tmp_path: Path
) -> None:
    base, versions = run
    made = tmp_path / "weight_v000001"
    with pytest.raises(OptionMeaningless, match=f"`{next(iter(given))}`"):
        weightsmith.make_delta(base, versions, made, codec="xor", **given)


def test_a_key_is_nothing_for_versions(run: Run, tmp_path: Path) -> None:
    base, versions = run
    with pytest.raises(OptionMeaningless, match="`key`"):
        weightsmith.apply_delta(base, versions, key=base / "config.json", target=tmp_path / "x")


def test_a_whole_version_begins_anew_and_needs_no_base(
    run: Run, models: list[Weights], tmp_path: Path
) -> None:
    base, versions = run
    shutil.rmtree(versions / "weight_v000002")
    write(versions / "weight_v000002", models[2])
    weightsmith.apply_delta(None, versions, target=tmp_path / "new")
    assert_equal(tmp_path / "new", models[3])
    with pytest.raises(NoBase):
        weightsmith.apply_delta(None, versions, at=1, target=tmp_path / "one")
    weightsmith.apply_delta(base, versions, at=1, target=tmp_path / "one")
    assert_equal(tmp_path / "one", models[1])


def refused(run: Run, tmp_path: Path, reason: str, at: int | None = None) -> None:
    with pytest.raises(VersionsBroken, match=reason) as caught:
        weightsmith.apply_delta(run[0], run[1], at=at, target=tmp_path / "new")
    assert caught.value.exit_code == 7
    assert not (tmp_path / "new").exists()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("encoding, algorithm", [*product(("xor", "overwrite"), ALGORITHMS)])
def test_versions_of_ours_are_read_by_another_reader(
    encoding: Any, algorithm: Any, models: list[Weights], tmp_path: Path
) -> None:
    write(tmp_path / "base", models[0])
    weights, base = models[0], tmp_path / "base"
    for number in (1, 2, 3):
        target = write(tmp_path / "models" / f"weight_v{number:06d}", models[number])
        delta = tmp_path / "run" / f"weight_v{number:06d}"
        made = weightsmith.make_delta(base, target, delta, codec=encoding, checksum=algorithm)
        assert not made.already_done
        again = weightsmith.make_delta(base, target, delta, codec=encoding, checksum=algorithm)
        assert again.already_done
        weights, base = apply(delta, weights), target
        assert all(torch.equal(weights[name], models[number][name]) for name in weights)
        said = json.loads((delta / "model.safetensors.index.json").read_text())
        assert "same" not in said["weight_map"]
    weightsmith.apply_delta(tmp_path / "base", tmp_path / "run", target=tmp_path / "new")
    assert_equal(tmp_path / "new", models[3])


@pytest.mark.parametrize("encoding", ["xor", "overwrite"])
def test_a_payload_that_does_not_unpack_to_what_was_packed_is_told(encoding: Any) -> None:
    packer = Packer(encoding)
    old, new = bytes(range(200)) * 50, bytes(range(1, 201)) * 50
    packer.add(memoryview(old), memoryview(new))
    payload = packer.finish()
    assert packer.restores(payload)
    assert not packer.restores(payload[:-3])
    other = Packer(encoding)
    other.add(memoryview(old), memoryview(new[:-1] + b"\0"))
    assert not packer.restores(other.finish())


def test_the_same_version_is_made_whatever_the_workers(
    models: list[Weights], tmp_path: Path
) -> None:
    base, target = write(tmp_path / "a", models[0]), write(tmp_path / "b", models[1])
    for workers in (1, 3):
        delta = tmp_path / f"{workers}" / "weight_v000001"
        options = weightsmith.Options(workers=workers)
        weightsmith.make_delta(base, target, delta, codec="xor", options=options)
    files = [
        (tmp_path / f"{n}" / "weight_v000001" / "model-00000-of-00001.safetensors").read_bytes()
        for n in (1, 3)
    ]
    assert files[0] == files[1]


def test_what_the_layout_cannot_say_is_refused(models: list[Weights], tmp_path: Path) -> None:
    base = write(tmp_path / "base", models[0])
    other = write(tmp_path / "other", {**models[0], "new": torch.ones(2)})
    with pytest.raises(TensorsDoNotFit) as caught:
        weightsmith.make_delta(base, other, tmp_path / "weight_v000001", codec="xor")
    assert caught.value.context == ("new is new",)
    with pytest.raises(VersionsBroken, match="its name says no version"):
        weightsmith.make_delta(base, write(tmp_path / "t", models[1]), tmp_path / "d", codec="xor")
    with pytest.raises(VersionsBroken, match="version 3 is made of version 2"):
        weightsmith.make_delta(base, tmp_path / "t", tmp_path / "weight_v000003", codec="xor")
    same = write(tmp_path / "same", models[0])
    with pytest.raises(NothingChanged):
        weightsmith.make_delta(base, same, tmp_path / "weight_v000001", codec="overwrite")
    assert not (tmp_path / "weight_v000001").exists()


def test_hundreds_of_versions_keep_few_files_open(tmp_path: Path) -> None:
    weights: Weights = {"a": torch.zeros(64, 32).bfloat16(), "norm.weight": torch.ones(32)}
    base = write(tmp_path / "base", weights)
    for number in range(1, 201):
        after = {**weights, "a": weights["a"].clone()}
        after["a"][number % 64] += 1
        publish(tmp_path / "run", number, weights, after)
        weights = after
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = len(os.listdir("/dev/fd"))  # noqa: PTH208
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken + 100, hard))
    try:
        weightsmith.apply_delta(base, tmp_path / "run", target=tmp_path / "new")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert_equal(tmp_path / "new", weights)


class TestBroken:
    def test_a_gap(self, run: Run, tmp_path: Path) -> None:
        shutil.rmtree(run[1] / "weight_v000002")
        refused(run, tmp_path, "weight_v000002 is missing, of which weight_v000003 is made")
        refused(run, tmp_path, "weight_v000009 is missing", at=9)

    def test_a_repeat(self, run: Run, tmp_path: Path) -> None:
        shutil.copytree(run[1] / "weight_v000002", run[1] / "weight_v0000002")
        refused(run, tmp_path, "is version 2 once more")

    def test_another_name_than_it_says(self, run: Run, tmp_path: Path) -> None:
        (run[1] / "weight_v000003").rename(run[1] / "weight_v000004")
        refused(run, tmp_path, "it says that it is version 3")

    def test_a_cycle(self, run: Run, tmp_path: Path) -> None:
        index = run[1] / "weight_v000002" / "model.safetensors.index.json"
        said = json.loads(index.read_text())
        said["metadata"]["base_version"] = "000003"
        index.write_text(json.dumps(said))
        refused(run, tmp_path, "weight_v000002 says that it is made of version 3")

    @pytest.mark.parametrize("number", ["", "-1", "1.0", "1" * 5000])
    def test_a_number_that_is_none(self, number: str, run: Run, tmp_path: Path) -> None:
        index = run[1] / "weight_v000002" / "model.safetensors.index.json"
        said = json.loads(index.read_text())
        said["metadata"]["base_version"] = number
        index.write_text(json.dumps(said))
        refused(run, tmp_path, "it does not say its version and base_version")

    def test_one_that_is_still_being_written_is_left_or_named(
        self, run: Run, models: list[Weights], tmp_path: Path
    ) -> None:
        (run[1] / "weight_v000003" / "model.safetensors.index.json").unlink()
        refused(run, tmp_path, "weight_v000003 is still being written", at=3)
        job = weightsmith.plan_apply_delta(run[0], run[1], target=tmp_path / "new")
        job.run()
        assert_equal(tmp_path / "new", models[2])

    @pytest.mark.parametrize("damaged", [1, 2, 3])
    def test_the_one_that_gives_other_bytes_than_it_says_is_named(
        self, damaged: int, run: Run, models: list[Weights], tmp_path: Path
    ) -> None:
        """It is a sound version, with the checksums of another."""
        before, other = models[damaged - 1], step(models[damaged], 9)
        folder = run[1] / f"weight_v{damaged:06d}"
        algorithm = ALGORITHMS[damaged % 3]
        good = load_metadata(folder)
        shutil.rmtree(folder)
        publish(run[1], damaged, before, other, algorithm=algorithm)
        swap_metadata(folder, good)
        refused(run, tmp_path, f"weight_v{damaged:06d}.* is damaged: .* has another {algorithm}")

    def test_it_is_named_under_other_names_too(
        self, run: Run, models: list[Weights], tmp_path: Path
    ) -> None:
        """Checksums go along when tensors are renamed, also where two change places."""
        chain = f"{run[0]}+{run[1]}"
        rename = ["small=new.small", "odd=big", "big=odd"]
        done = weightsmith.convert(chain, tmp_path / "sound", rename=rename)
        names = {"small": "new.small", "odd": "big", "big": "odd"}
        renamed = {names.get(name, name): tensor for name, tensor in models[3].items()}
        assert_equal(done.target, renamed)
        folder = run[1] / "weight_v000003"
        good = load_metadata(folder)
        shutil.rmtree(folder)
        publish(run[1], 3, models[2], step(models[3], 9), algorithm=ALGORITHMS[0])
        swap_metadata(folder, good)
        with pytest.raises(VersionsBroken, match=r"weight_v000003 is damaged: small has another"):
            weightsmith.convert(chain, tmp_path / "new", rename=rename[:1], keep=["small"])
        assert not (tmp_path / "new").exists()

    def test_a_payload_that_is_no_such_thing(self, run: Run, tmp_path: Path) -> None:
        folder = run[1] / "weight_v000002"
        for path in folder.glob("*.safetensors"):
            raw = bytearray(path.read_bytes())
            raw[-8:] = b"\0" * 8
            path.write_bytes(raw)
        with pytest.raises(WeightsmithError) as caught:
            weightsmith.apply_delta(run[0], run[1], target=tmp_path / "new")
        assert caught.value.exit_code in {6, 7}
        assert not (tmp_path / "new").exists()

    def test_a_tensor_that_the_base_lacks(
        self, models: list[Weights], run: Run, tmp_path: Path
    ) -> None:
        base = write(tmp_path / "less", {k: v for k, v in models[0].items() if k != "small"})
        refused((base, run[1]), tmp_path, "it changes small, which the model before it does not")

    def test_a_number_where_there_are_no_versions(self, run: Run, tmp_path: Path) -> None:
        weightsmith.make_delta(run[0], f"{run[0]}+{run[1]}", tmp_path / "d")
        with pytest.raises(OptionMeaningless):
            weightsmith.apply_delta(run[0], tmp_path / "d", at=1, target=tmp_path / "new")


def load_metadata(folder: Path) -> dict[str, dict[str, str]]:
    from safetensors import safe_open

    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found[path.name] = file.metadata()
    return found


def swap_metadata(folder: Path, sums: dict[str, dict[str, str]]) -> None:
    """Let the files say the checksums of other bytes."""
    everything = {name: each for held in sums.values() for name, each in held.items()}
    for path in folder.glob("*.safetensors"):
        tensors = load_file(path)
        known = {name: everything.get(name, "0" * 32) for name in tensors}
        save_file(tensors, path, metadata=known)

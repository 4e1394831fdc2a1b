"""A finished target is checked, to the last byte, before "already done" is said."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.folders import contents, copied, hidden, state, write_model
from weightsmith.engine.manifest import NAME as MANIFEST
from weightsmith.engine.manifest import read_manifest
from weightsmith.engine.options import Bindings, Options
from weightsmith.engine.run import Outcome
from weightsmith.errors import JsonInvalid, TargetExists
from weightsmith.ops.apply_delta import apply_delta, plan_apply_delta
from weightsmith.ops.combine import combine
from weightsmith.ops.convert import convert
from weightsmith.ops.job import Job, carry_out
from weightsmith.ops.make_delta import make_delta

FLIPS = 200


@pytest.fixture(scope="module")
def job(vectors: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A plan whose target is finished."""
    vector = vectors / "vicuna_v1_1"
    made = plan_apply_delta(
        vector / "base",
        vector / "delta",
        target=tmp_path_factory.mktemp("done") / "out",
        max_shard_nbytes=30_000,
    )
    assert not carry_out(made, Options()).already_done
    return made


def _again(job: Job, **options: Any) -> Outcome:
    return carry_out(job, Options(**options))


def test_a_sound_target_is_already_done_and_stays_untouched(job: Job) -> None:
    target = job.bindings.target
    before = state(target)
    for options in ({}, {"overwrite": True}, {"restart": True}):
        outcome = _again(job, **options)
        assert outcome.already_done
        assert outcome.manifest == read_manifest(target)
    assert state(target) == before
    assert hidden(target.parent) == []


def test_a_flip_of_any_bit_of_any_file_is_noticed(job: Job) -> None:
    target = job.bindings.target
    rng = random.Random(0)
    files = sorted(path for path in target.iterdir())
    tried = dict.fromkeys((path.name for path in files), 0)
    for number in range(FLIPS):
        path = files[number % len(files)]
        sound = path.read_bytes()
        place = rng.randrange(len(sound))
        if path.name == MANIFEST and _names_the_maker(sound, place):
            continue
        flipped = bytearray(sound)
        flipped[place] ^= 1 << rng.randrange(8)
        stat = path.stat()
        path.write_bytes(flipped)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        with pytest.raises(TargetExists) as caught:
            _again(job)
        assert caught.value.exit_code == 9, (path.name, place)
        path.write_bytes(sound)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        tried[path.name] += 1
    assert min(tried.values()) > 5
    assert _again(job).already_done


def _names_the_maker(manifest: bytes, place: int) -> bool:
    """The version that made it: another one may well have made the same bytes."""
    start = manifest.index(b'"made_by": ')
    return start <= place < manifest.index(b"\n", start)


def test_padding_of_a_header_counts(job: Job) -> None:
    shard = next(
        path
        for path in sorted(job.bindings.target.glob("*.safetensors"))
        if b"}  " in path.read_bytes()[:4000]
    )
    sound = shard.read_bytes()
    shard.write_bytes(sound.replace(b"}  ", b"} \n", 1))
    with pytest.raises(TargetExists, match="size or header differ"):
        _again(job)
    shard.write_bytes(sound)
    assert _again(job).already_done


@pytest.mark.parametrize("name", ["config.json", "tokenizer.model", MANIFEST])
def test_a_missing_file_is_noticed(name: str, job: Job) -> None:
    path = job.bindings.target / name
    sound = path.read_bytes()
    stat = path.stat()
    path.unlink()
    with pytest.raises(TargetExists) as caught:
        _again(job)
    reason = str(caught.value)
    assert ("nothing in it says" if name == MANIFEST else name) in reason
    path.write_bytes(sound)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert _again(job).already_done


def test_a_missing_or_swapped_shard_is_noticed(job: Job) -> None:
    first, second = sorted(job.bindings.target.glob("*.safetensors"))[:2]
    aside = job.bindings.target.parent / "aside"
    first.rename(aside)
    with pytest.raises(TargetExists, match="missing"):
        _again(job)
    second.rename(first)
    aside.rename(second)
    with pytest.raises(TargetExists, match="damaged"):
        _again(job)
    first.rename(aside)
    second.rename(first)
    aside.rename(second)
    assert _again(job).already_done


def test_a_damaged_target_is_made_again_when_asked_for(vectors: Path, tmp_path: Path) -> None:
    vector, target = vectors / "vicuna_v1_1", tmp_path / "out"
    apply_delta(vector / "base", vector / "delta", target=target)
    sound = contents(target)
    shard = target / "model.safetensors"
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(TargetExists):
        apply_delta(vector / "base", vector / "delta", target=target)
    apply_delta(vector / "base", vector / "delta", target=target, options=Options(overwrite=True))
    assert contents(target) == sound
    assert hidden(tmp_path) == []


def test_an_input_newer_than_the_target_is_not_already_done(vectors: Path, tmp_path: Path) -> None:
    base, delta = (
        copied(vectors / "vicuna_v1_1" / side, tmp_path / side) for side in ("base", "delta")
    )
    target = tmp_path / "out"
    apply_delta(base, delta, target=target)
    finished_ns = (target / MANIFEST).stat().st_mtime_ns
    shard = sorted(base.glob("*.bin"))[1]
    os.utime(shard, ns=(finished_ns, finished_ns))
    assert apply_delta(base, delta, target=target).already_done
    os.utime(shard, ns=(finished_ns + 1, finished_ns + 1))
    with pytest.raises(TargetExists) as caught:
        apply_delta(base, delta, target=target)
    assert f"{shard} is newer" in str(caught.value)
    again = apply_delta(base, delta, target=target, options=Options(overwrite=True))
    assert not again.already_done


Verb = Callable[[Path, Path, Path], Outcome]


def _combine(a: Path, b: Path, target: Path) -> Outcome:
    return combine([(0.25, a), (0.75, b)], target)


def _make_version(a: Path, b: Path, target: Path) -> Outcome:
    return make_delta(a, b, target.with_name("weight_v000001"), codec="xor")


@pytest.mark.parametrize(
    "make",
    [
        lambda a, b, target: convert(b, target),
        lambda a, b, target: convert(b, target, dtype="bfloat16"),
        _combine,
        make_delta,
        _make_version,
    ],
    ids=["copied", "cast", "summed", "exact delta", "version"],
)
def test_inputs_of_the_same_headers_and_other_values_are_not_already_done(
    make: Verb, tmp_path: Path
) -> None:
    """The last row alone differs, and no file is newer than the target: a fine-tune of new tokens,
    say, of which an earlier step is asked for.
    """
    torch.manual_seed(0)
    rows = torch.randn(600, 1000)
    changed = rows * 2
    later = torch.cat([changed[:-1], changed[-1:] * 2])
    a, b, other = (
        write_model(tmp_path / name, {"model.embed_tokens.weight": each})
        for name, each in (("a", rows), ("b", changed), ("other", later))
    )
    assert not make(a, b, tmp_path / "out").already_done
    assert make(a, b, tmp_path / "out").already_done
    with pytest.raises(TargetExists, match=r"made of inputs with other values|another plan"):
        make(a, other, tmp_path / "out")
    assert make(a, b, tmp_path / "out").already_done


def test_another_plans_target_is_in_the_way(job: Job, vectors: Path) -> None:
    vector = vectors / "vicuna_v1_1"
    before = state(job.bindings.target)
    with pytest.raises(TargetExists, match="another plan made it"):
        apply_delta(vector / "base", vector / "delta", target=job.bindings.target, dtype="float32")
    assert state(job.bindings.target) == before


def test_the_plan_does_not_know_where_its_inputs_are(
    job: Job, vectors: Path, tmp_path: Path
) -> None:
    """Moved inputs and a moved target are the same plan: the target is already done."""
    sides = ("base", "delta")
    base, delta = (copied(vectors / "vicuna_v1_1" / s, tmp_path / "else" / s) for s in sides)
    moved = plan_apply_delta(base, delta, target=tmp_path / "out", max_shard_nbytes=30_000)
    assert moved.plan == job.plan
    assert moved.plan.digest == job.plan.digest
    bindings = Bindings(moved.bindings.inputs, moved.bindings.sidecars, job.bindings.target)
    assert carry_out(Job(moved.plan, bindings), Options()).already_done


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"not json", b'{"schema": "weightsmith/manifest@1"}', b"\xff\xfe"],
)
def test_a_manifest_that_is_none_is_told_from_a_missing_one(content: bytes, tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(JsonInvalid):
        read_manifest(tmp_path)

"""A delta that was being made when the process was killed is continued, to the same bytes."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.children import KILLED, Answer, Children
from tests.support.delta_models import SIDECARS, trained, weights
from tests.support.folders import (
    contents,
    copied,
    hidden,
    inodes,
    staging,
    state,
    work_in,
    write_model,
)
from weightsmith.checkpoint.opening import open_checkpoint
from weightsmith.engine.options import Options
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.make_delta import make_delta
from weightsmith.plan.exact_record import DeltaRecord
from weightsmith.progress import Silence

FILES = 4
UNCHANGED = "delta-00002-of-00004.safetensors"
AFTER_THREE_FILES = 3 + 3 + 2 + 3 + 1
"""Durable steps: three for the plan; a file's sync, and two for its receipt, the second being no
file at all; and the fourth file's sync.
"""


def base_tensors() -> dict[str, Tensor]:
    """Dealt out over four files: each has the first, second, third or fourth of four."""
    return {f"layers.{n}.weight": weights(90, 40, seed=n) for n in range(8)} | {
        "embed.weight": weights(70, 40, seed=20),
        "layers.0.ids": torch.arange(20),
        "layers.0.gone": weights(5, seed=21),
    }


def target_tensors() -> dict[str, Tensor]:
    """The second file is the base's; the head in the last is tied to the embedding in the first."""
    tensors = base_tensors()
    del tensors["layers.0.gone"]
    for number, name in enumerate(tensors):
        if number % FILES != 1 and tensors[name].is_floating_point():
            tensors[name] = trained(tensors[name], seed=number)
    return tensors | {
        "new": weights(33, seed=22),
        "lm_head.weight": tensors["embed.weight"].clone(),
    }


class Interrupted:
    """Inputs, and a delta whose making is killed when three of its four files are done."""

    def __init__(self, pair: Path, home: Path, children: Children) -> None:
        self.base, self.target = (copied(pair / side, home / side) for side in ("base", "target"))
        self.delta = home / "outputs" / "delta"
        self.staging = staging(self.delta)
        self._children = children

    def make(self, **request: Any) -> Answer:
        return self._children.make(self.base, self.target, self.delta, **request)

    def interrupt(self) -> None:
        assert self.make(die_at_step=AFTER_THREE_FILES).exit == KILLED
        assert len(self.receipts) == FILES - 1

    @property
    def receipts(self) -> list[Path]:
        return sorted((self.staging / "receipts").glob("*.json"))

    def check_finished(self, answer: Answer, expected: dict[str, bytes], kept: int) -> None:
        assert (answer.exit, answer.error, answer.unknown, answer.kept) == (0, "", "", kept)
        assert contents(self.delta) == expected
        assert hidden(self.delta.parent) == []


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and a target, which no test writes to."""
    folder = tmp_path_factory.mktemp("pair")
    write_model(folder / "base", base_tensors(), shards=2)
    write_model(folder / "target", target_tensors(), shards=FILES)
    for name, content in SIDECARS.items():
        (folder / "target" / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def expected(pair: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every file of the delta, made without an interruption."""
    delta = tmp_path_factory.mktemp("straight") / "delta"
    make_delta(pair / "base", pair / "target", delta)
    made = contents(delta)
    assert UNCHANGED not in made
    assert len([name for name in made if name.startswith("delta-0")]) == FILES - 1
    return made


@pytest.fixture
def world(pair: Path, tmp_path: Path, children: Children) -> Interrupted:
    return Interrupted(pair, tmp_path, children)


@pytest.fixture
def interrupted(world: Interrupted) -> Interrupted:
    world.interrupt()
    return world


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_durable_step_the_delta_is_absent_or_whole(
    every: int, world: Interrupted, expected: dict[str, bytes]
) -> None:
    inputs = state(world.base, world.target)
    whole = world.make()
    world.check_finished(whole, expected, kept=0)
    kept = []
    for step in range(1 + (whole.steps - 1) % every, whole.steps + 1, every):  # the last too
        world.delta = world.delta.with_name(f"delta-{step}")
        assert world.make(die_at_step=step).exit == KILLED
        if world.delta.exists():
            assert contents(world.delta) == expected, step
        else:
            left = inodes([staging(world.delta)])
            assert left.isdisjoint(inodes([world.base, world.target])), step
        again = world.make()
        assert (again.exit, again.error, again.unknown) == (0, "", ""), step
        assert contents(world.delta) == expected, step
        assert hidden(world.delta.parent) == [], step
        kept.append(again.kept)
    assert state(world.base, world.target) == inputs
    assert kept == sorted(kept)
    assert every > 1 or set(kept) == set(range(FILES + 1))


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_after_any_write_nothing_is_published_and_nothing_is_lost(
    every: int, world: Interrupted, expected: dict[str, bytes]
) -> None:
    whole = world.make(options={"workers": 1})
    for write in range(1, whole.writes + 1, every):
        world.delta = world.delta.with_name(f"delta-{write}")
        assert world.make(die_at_write=write, options={"workers": 1}).exit == KILLED
        assert not world.delta.exists(), write
        again = world.make()
        assert (again.error, again.unknown) == ("", ""), write
        assert contents(world.delta) == expected, write


def test_finished_files_are_kept_and_not_written_again(
    interrupted: Interrupted, expected: dict[str, bytes]
) -> None:
    before = {path.name: path.stat() for path in (interrupted.staging / "output").iterdir()}
    receipts = [path.stem for path in interrupted.receipts]
    assert UNCHANGED in receipts
    interrupted.check_finished(interrupted.make(), expected, kept=3)
    for name in receipts:
        if name != UNCHANGED:
            after = (interrupted.delta / name).stat()
            assert (after.st_ino, after.st_mtime_ns) == (
                before[name].st_ino,
                before[name].st_mtime_ns,
            )


def test_what_is_kept_is_told(interrupted: Interrupted) -> None:
    class Notes(Silence):
        said: list[str] = []  # noqa: RUF012

        def note(self, text: str) -> None:
            self.said.append(text)

    made = make_delta(interrupted.base, interrupted.target, interrupted.delta, progress=Notes())
    assert Notes.said == ["continuing an earlier run: 3 of 4 files are finished"]
    assert made.kept == 3


def test_a_continued_delta_restores_the_targets_files(
    interrupted: Interrupted, tmp_path: Path
) -> None:
    assert interrupted.make().kept == 3
    apply_delta(interrupted.base, interrupted.delta, target=tmp_path / "out")
    assert contents(interrupted.target).items() <= contents(tmp_path / "out").items()


def test_what_is_the_same_in_a_kept_file_and_a_new_one_is_stored_once(
    interrupted: Interrupted,
) -> None:
    assert interrupted.make().kept == 3
    manifest = json.loads((interrupted.delta / "weightsmith.json").read_bytes())
    record = DeltaRecord.from_document(manifest["delta"])
    payloads = {each.info.name: each.payload for each in record.tensors}
    assert payloads["lm_head.weight"] == payloads["embed.weight"] == "embed.weight"
    holders = {
        name: each.file
        for name, each in open_checkpoint(interrupted.delta, kind="exact-delta").tensors.items()
    }
    assert holders["embed.weight"].startswith("delta-00001")
    target = open_checkpoint(interrupted.target)
    assert target.tensors["lm_head.weight"].file.startswith("model-00004")


@pytest.mark.parametrize("side", ["base", "target"])
def test_an_input_that_changed_since_is_refused_and_restart_starts_afresh(
    side: str, interrupted: Interrupted, expected: dict[str, bytes]
) -> None:
    """Same size, same header, other weights: only its time tells."""
    folder = interrupted.base if side == "base" else interrupted.target
    shard = folder / (
        "model-00001-of-00002.safetensors" if side == "base" else "model-00001-of-00004.safetensors"
    )
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 0x40
    shard.write_bytes(raw)
    before = work_in(interrupted.staging)
    refused = interrupted.make()
    assert (refused.error, refused.exit_code) == ("staging-of-another-plan", 9)
    assert "an input changed since" in refused.message
    assert work_in(interrupted.staging) == before
    answer = interrupted.make(options={"restart": True})
    assert (answer.error, answer.unknown, answer.kept) == ("", "", 0)
    made = contents(interrupted.delta)
    assert made.keys() == expected.keys()
    assert made != expected
    assert hidden(interrupted.delta.parent) == []


def test_unfinished_work_of_another_plan_is_refused_untouched(interrupted: Interrupted) -> None:
    before = work_in(interrupted.staging)
    refused = interrupted.make(plan={"base_id": "org/base@1"})
    assert (refused.error, refused.exit_code) == ("staging-of-another-plan", 9)
    assert work_in(interrupted.staging) == before


@pytest.mark.parametrize("place", ["header", "metadata", "first byte of data", "last byte"])
def test_a_damaged_kept_file_is_noticed(
    place: str, interrupted: Interrupted, expected: dict[str, bytes]
) -> None:
    path = interrupted.staging / "output" / interrupted.receipts[0].stem
    raw = bytearray(path.read_bytes())
    data = 8 + int.from_bytes(raw[:8], "little")
    at = {
        "header": 9,
        "metadata": raw.index(b"weightsmith-delta"),
        "first byte of data": data,
        "last byte": len(raw) - 1,
    }[place]
    raw[at] ^= 0x40
    path.write_bytes(raw)
    found = interrupted.make()
    assert (found.error, found.exit_code) == ("verification-failed", 10)
    assert path.name in found.message
    assert not interrupted.delta.exists()
    interrupted.check_finished(interrupted.make(options={"restart": True}), expected, kept=0)


def _cut(world: Interrupted) -> None:
    path = world.staging / "output" / world.receipts[2].stem
    os.truncate(path, path.stat().st_size - 1)


def _delete_file(world: Interrupted) -> None:
    (world.staging / "output" / world.receipts[2].stem).unlink()


def _delete_receipt(world: Interrupted) -> None:
    world.receipts[2].unlink()


def _garble_receipt(world: Interrupted) -> None:
    world.receipts[2].write_bytes(b'{"plan_digest"')


def _other_digest(world: Interrupted) -> None:
    """What the record would say of the target, and nothing else in staging contradicts."""
    receipt = json.loads(world.receipts[2].read_bytes())
    receipt["encoded"]["tensors"][0]["digest"] = "00" * 32
    world.receipts[2].write_text(json.dumps(receipt))


@pytest.mark.parametrize(
    "harm", [_cut, _delete_file, _delete_receipt, _garble_receipt, _other_digest]
)
def test_a_file_without_a_sound_receipt_is_made_again(
    harm: Any, interrupted: Interrupted, expected: dict[str, bytes]
) -> None:
    harm(interrupted)
    interrupted.check_finished(interrupted.make(), expected, kept=2)


def test_files_after_one_that_is_made_again_are_not_kept(
    interrupted: Interrupted, expected: dict[str, bytes]
) -> None:
    """They may lean on it, for a tensor that is the same."""
    interrupted.receipts[0].unlink()
    interrupted.check_finished(interrupted.make(), expected, kept=0)


def test_a_file_that_should_not_be_there_is_not_published(
    interrupted: Interrupted, expected: dict[str, bytes]
) -> None:
    """Its deletion may not have reached the medium when the power went."""
    (interrupted.staging / "output" / UNCHANGED).write_bytes(b"half of it")
    interrupted.check_finished(interrupted.make(), expected, kept=1)


@pytest.mark.parametrize("other", [{"workers": 1}, {"workers": 4}, {"low_cpu_mem": True}], ids=str)
def test_run_options_may_change_on_the_way(
    other: dict[str, Any], interrupted: Interrupted, expected: dict[str, bytes]
) -> None:
    interrupted.check_finished(interrupted.make(options=other), expected, kept=3)


def test_after_a_failed_sync_no_receipt_vouches_for_the_file(
    world: Interrupted, expected: dict[str, bytes]
) -> None:
    plan, first_file = 2, 1
    failed = world.make(fail_sync=plan + first_file)
    assert (failed.error, failed.exit_code) == ("target-unwritable", 9)
    assert world.receipts == []
    world.check_finished(world.make(), expected, kept=0)


def test_a_finished_delta_whose_record_was_changed_is_made_again_when_asked_for(
    interrupted: Interrupted, expected: dict[str, bytes]
) -> None:
    assert interrupted.make().kept == 3
    path = interrupted.delta / "weightsmith.json"
    path.write_bytes(path.read_bytes().replace(b'"verb": "make-delta"', b'"verb": "make-deltb"'))
    refused = interrupted.make()
    assert (refused.error, refused.exit_code) == ("target-exists", 9)
    assert "weightsmith.json was changed" in refused.message
    interrupted.check_finished(interrupted.make(options={"overwrite": True}), expected, kept=0)


def test_torch_files_are_continued_too(tmp_path: Path, children: Children) -> None:
    """Of these, tensors are recorded and files are not."""
    base = write_model(tmp_path / "base", base_tensors(), suffix="bin", shards=2)
    target = write_model(tmp_path / "target", target_tensors(), suffix="bin", shards=FILES)
    make_delta(base, target, tmp_path / "straight", options=Options(workers=1))
    delta = tmp_path / "outputs" / "delta"
    assert children.make(base, target, delta, die_at_step=AFTER_THREE_FILES).exit == KILLED
    again = children.make(base, target, delta)
    assert (again.error, again.unknown, again.kept) == ("", "", 3)
    assert contents(delta) == contents(tmp_path / "straight")

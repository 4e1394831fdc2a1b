"""Going on where an earlier run stopped, and refusing to mix what does not belong together."""

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.children import KILLED, Answer, Children
from tests.support.folders import contents, copied, hidden, staging, state, work_in

PLAN = {"max_shard_nbytes": 30_000}
AFTER_TWO_SHARDS = 10
"""Durable steps: three for the plan, three a shard, and the third shard's sync."""


def inputs(vectors: Path, home: Path) -> tuple[Path, Path]:
    """A base and a delta, copied into `home`."""
    vector = vectors / "vicuna_v1_1"
    base = copied(vector / "base", home / "base", tokenizer=False)
    return base, copied(vector / "delta", home / "delta", tokenizer=False)


class Interrupted:
    """A run that was killed after two of four shards, and the folders around it."""

    def __init__(self, vectors: Path, home: Path, children: Children) -> None:
        self.base, self.delta = inputs(vectors, home)
        self.target = home / "outputs" / "vicuna"
        self.staging = staging(self.target)
        self._children = children
        assert self.run(die_at_step=AFTER_TWO_SHARDS).exit == KILLED
        assert len(self.receipts) == 2

    def run(self, **request: Any) -> Answer:
        return self._children.apply(self.base, self.delta, self.target, **{"plan": PLAN, **request})

    @property
    def receipts(self) -> list[Path]:
        return sorted((self.staging / "receipts").glob("*.json"))

    def staged(self, number: int) -> Path:
        return next((self.staging / "output").glob(f"model-{number:05d}-of-*.safetensors"))


@pytest.fixture
def interrupted(vectors: Path, tmp_path: Path, children: Children) -> Interrupted:
    return Interrupted(vectors, tmp_path, children)


@pytest.fixture(scope="module")
def expected(
    vectors: Path, children: Children, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """Every file, made without an interruption."""
    home = tmp_path_factory.mktemp("straight")
    target = home / "out"
    answer = children.apply(*inputs(vectors, home), target, plan=PLAN)
    assert (answer.error, answer.unknown, answer.kept) == ("", "", 0)
    return contents(target)


def _assert_finished(answer: Answer, interrupted: Interrupted, expected: dict[str, bytes]) -> None:
    assert (answer.error, answer.unknown) == ("", "")
    assert contents(interrupted.target) == expected
    assert hidden(interrupted.target.parent) == []


def test_finished_shards_are_kept_and_not_written_again(
    interrupted: Interrupted, expected: dict[str, bytes]
) -> None:
    before = {path.name: path.stat() for path in map(interrupted.staged, (1, 2))}
    answer = interrupted.run()
    _assert_finished(answer, interrupted, expected)
    assert answer.kept == 2
    for name, stat in before.items():
        after = (interrupted.target / name).stat()
        assert (after.st_ino, after.st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)


@pytest.mark.parametrize(
    "other", [{"workers": 1}, {"workers": 4}, {"low_cpu_mem": True}, {"verify": "no"}], ids=str
)
def test_run_options_may_change_on_the_way(
    other: dict[str, Any], interrupted: Interrupted, expected: dict[str, bytes]
) -> None:
    answer = interrupted.run(options=other)
    _assert_finished(answer, interrupted, expected)
    assert answer.kept == 2


@pytest.mark.parametrize("side", ["base", "delta"])
def test_an_input_that_changed_since_is_refused_and_restart_starts_afresh(
    side: str, interrupted: Interrupted, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """Same size, same header, other weights: only its time tells."""
    shard = next((tmp_path / side).glob("pytorch_model-00001-of-*.bin"))
    raw = bytearray(shard.read_bytes())
    raw[_inside_a_storage(shard) + 1] ^= 0x40  # the sign of a float16's exponent
    shard.write_bytes(raw)
    before = work_in(interrupted.staging)
    refused = interrupted.run()
    assert (refused.error, refused.exit_code) == ("staging-of-another-plan", 9)
    assert "an input changed since" in refused.message
    assert work_in(interrupted.staging) == before
    answer = interrupted.run(options={"restart": True})
    assert (answer.error, answer.unknown, answer.kept) == ("", "", 0)
    changed = contents(interrupted.target)
    assert changed.keys() == expected.keys()
    assert changed != expected
    assert hidden(interrupted.target.parent) == []


def _inside_a_storage(shard: Path) -> int:
    """An element of the largest tensor."""
    from weightsmith import fs
    from weightsmith.formats.torch_zip import read_torch_table

    tensors = read_torch_table(fs.open_for_reading(shard)).tensors
    return max(tensors, key=lambda tensor: tensor.info.nbytes).offset + 100


def test_an_input_that_was_only_touched_is_refused_too(interrupted: Interrupted) -> None:
    shard = next(interrupted.base.glob("pytorch_model-00001-of-*.bin"))
    os.utime(shard, ns=(1, 1))
    assert interrupted.run().error == "staging-of-another-plan"


def test_an_input_that_no_kept_shard_came_from_may_change(
    vectors: Path, tmp_path: Path, children: Children
) -> None:
    """A shard that is not made yet mixes nothing."""
    world = Interrupted(vectors, tmp_path, children)
    used = {
        file[0]
        for path in world.receipts
        for file in json.loads(path.read_bytes())["made_from"]["base"]
    }
    others = {path.name for path in world.base.glob("*.bin")} - used
    for name in others:
        os.utime(world.base / name, ns=(1, 1))
    assert others == {"pytorch_model-00002-of-00002.bin"}
    assert world.run().error == ""


def test_unfinished_work_of_another_plan_is_refused_untouched(interrupted: Interrupted) -> None:
    before = work_in(interrupted.staging)
    for changed in ({"dtype": "float32"}, {"max_shard_nbytes": 50_000}):
        refused = interrupted.run(plan={**PLAN, **changed})
        assert (refused.error, refused.exit_code) == ("staging-of-another-plan", 9)
        assert work_in(interrupted.staging) == before
        assert not interrupted.target.exists()
    other = interrupted.run(plan={**PLAN, "dtype": "float32"}, options={"restart": True})
    assert (other.error, other.kept) == ("", 0)


@pytest.mark.parametrize("place", ["header", "first byte of data", "last byte"])
def test_a_damaged_staged_shard_is_noticed(
    place: str, interrupted: Interrupted, expected: dict[str, bytes]
) -> None:
    shard = interrupted.staged(1)
    raw = bytearray(shard.read_bytes())
    data = 8 + int.from_bytes(raw[:8], "little")
    raw[{"header": 9, "first byte of data": data, "last byte": len(raw) - 1}[place]] ^= 0x40
    shard.write_bytes(raw)
    found = interrupted.run()
    assert (found.error, found.exit_code) == ("verification-failed", 10)
    assert shard.name in found.message
    assert not interrupted.target.exists()
    _assert_finished(interrupted.run(options={"restart": True}), interrupted, expected)


def _cut(world: Interrupted) -> None:
    os.truncate(world.staged(1), world.staged(1).stat().st_size - 1)


def _delete_shard(world: Interrupted) -> None:
    world.staged(1).unlink()


def _delete_receipt(world: Interrupted) -> None:
    world.receipts[0].unlink()


def _garble_receipt(world: Interrupted) -> None:
    world.receipts[0].write_bytes(b'{"plan_digest"')


def _link_shard(world: Interrupted) -> None:
    """To a file that is right to the last byte, and not ours."""
    shard = world.staged(1)
    shard.rename(world.target.parent / "elsewhere.safetensors")
    shard.symlink_to(world.target.parent / "elsewhere.safetensors")


def _directory_for_shard(world: Interrupted) -> None:
    world.staged(1).unlink()
    (world.staging / "output" / "model-00001-of-00004.safetensors" / "inside").mkdir(parents=True)


def _deep_receipt(world: Interrupted) -> None:
    world.receipts[0].write_bytes(b"[" * 100_000)


def _strange_receipt(world: Interrupted) -> None:
    world.receipts[0].write_bytes(b"[1, 2]")


def _other_fields(world: Interrupted) -> None:
    world.receipts[0].write_bytes(b'{"plan": 1}')


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    "harm",
    [
        *(_cut, _delete_shard, _delete_receipt, _garble_receipt, _deep_receipt),
        *(_strange_receipt, _other_fields, _link_shard, _directory_for_shard),
    ],
)
def test_a_shard_without_a_sound_receipt_is_made_again(
    harm: Any, interrupted: Interrupted, expected: dict[str, bytes]
) -> None:
    harm(interrupted)
    answer = interrupted.run()
    _assert_finished(answer, interrupted, expected)
    assert answer.kept == 1


def test_what_a_staged_link_leads_to_is_left_as_it_is(
    interrupted: Interrupted, expected: dict[str, bytes]
) -> None:
    """Of a shard that is finished, of one that is not, and of nothing that was planned."""
    theirs = interrupted.target.parent / "theirs"
    theirs.write_bytes(b"from whoever")
    for name in ("model-00001-of-00004.safetensors", "model-00004-of-00004.safetensors", "x.json"):
        path = interrupted.staging / "output" / name
        path.unlink(missing_ok=True)
        path.symlink_to(theirs)
    _assert_finished(interrupted.run(), interrupted, expected)
    assert theirs.read_bytes() == b"from whoever"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
@pytest.mark.parametrize("place", ["lock", "plan.json", "receipt"])
@pytest.mark.parametrize("instead", ["fifo", "symbolic", "hard"])
def test_what_others_put_in_the_place_of_a_file_of_staging_is_neither_waited_for_nor_written_to(
    interrupted: Interrupted, expected: dict[str, bytes], place: str, instead: str
) -> None:
    path = interrupted.receipts[0] if place == "receipt" else interrupted.staging / place
    theirs = interrupted.target.parent / "theirs"
    os.link(path, theirs)
    content = theirs.read_bytes()
    if instead != "hard":
        path.unlink()
    if instead == "fifo":
        os.mkfifo(path)
    elif instead == "symbolic":
        path.symlink_to(theirs)
    _assert_finished(interrupted.run(), interrupted, expected)
    assert theirs.read_bytes() == content


@pytest.mark.sampled(5)
@pytest.mark.parametrize("place", ["output", "receipts", "plan.json"])
@pytest.mark.parametrize("instead", ["nothing", "link", "file", "directory"])
def test_staging_that_lost_a_part_is_begun_again(
    interrupted: Interrupted, expected: dict[str, bytes], place: str, instead: str
) -> None:
    path, elsewhere = interrupted.staging / place, interrupted.target.parent / "elsewhere"
    path.rename(elsewhere)
    before = contents(elsewhere)
    match instead:
        case "link":
            path.symlink_to(elsewhere)
        case "file":
            path.write_bytes(b"from whoever")
        case "directory":
            path.mkdir()
    answer = interrupted.run(options={"restart": (place, instead) == ("plan.json", "file")})
    _assert_finished(answer, interrupted, expected)
    assert not interrupted.target.is_symlink()
    assert answer.kept == (2 if (place, instead) == ("plan.json", "link") else 0)
    assert contents(elsewhere) == before


def test_a_shard_that_was_half_made_again_has_no_receipt_of_the_first_time(
    interrupted: Interrupted, expected: dict[str, bytes]
) -> None:
    interrupted.staged(1).unlink()
    assert interrupted.run(die_at_write=2).exit == KILLED
    assert interrupted.staged(1).stat().st_size == len(expected[interrupted.staged(1).name])
    _assert_finished(interrupted.run(options={"verify": "no"}), interrupted, expected)


def test_what_lies_in_staging_without_a_plan_is_not_published(
    vectors: Path, tmp_path: Path, children: Children, expected: dict[str, bytes]
) -> None:
    target = tmp_path / "out"
    output = staging(target) / "output"
    output.mkdir(parents=True)
    (output / "notes.txt").write_text("from whoever")
    (output / "model-00001-of-00004.safetensors").write_text("from whoever")
    answer = children.apply(*inputs(vectors, tmp_path), target, plan=PLAN)
    assert answer.error == ""
    assert contents(target) == expected


def test_staging_that_is_a_link_is_refused(
    vectors: Path, tmp_path: Path, children: Children
) -> None:
    target, elsewhere = tmp_path / "home" / "out", tmp_path / "elsewhere"
    (elsewhere / "output").mkdir(parents=True)
    (elsewhere / "output" / "theirs.txt").touch()
    target.parent.mkdir()
    staging(target).symlink_to(elsewhere)
    vector = vectors / "vicuna_v1_1"
    answer = children.apply(vector / "base", vector / "delta", target)
    assert (answer.error, answer.exit_code) == ("target-unwritable", 9)
    assert list(contents(elsewhere)) == ["output/theirs.txt"]


def test_a_second_run_at_the_same_time_is_refused_and_harms_nothing(
    interrupted: Interrupted, expected: dict[str, bytes]
) -> None:
    before = state(interrupted.staging / "output", interrupted.staging / "receipts")
    with (interrupted.staging / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for options in ({}, {"restart": True}, {"overwrite": True}):
            busy = interrupted.run(options=options)
            assert (busy.error, busy.exit_code) == ("staging-busy", 9)
    assert state(interrupted.staging / "output", interrupted.staging / "receipts") == before
    _assert_finished(interrupted.run(), interrupted, expected)


@pytest.mark.parametrize("another", [False, True])
def test_a_lock_that_was_deleted_with_its_staging_holds_nothing(
    another: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run that held it ended after we had opened it; a third one may have begun since."""
    from weightsmith.engine.staging import Staging
    from weightsmith.errors import StagingBusy

    place, flock = Staging(tmp_path / "out"), fcntl.flock

    def end_and_flock(lock: Any, how: int) -> None:
        shutil.rmtree(place.path)
        if another:
            place.path.mkdir()
            (place.path / "lock").touch()
        flock(lock, how)

    with place.held():
        pass
    monkeypatch.setattr(fcntl, "flock", end_and_flock)
    with pytest.raises(StagingBusy), place.held():
        pass


def test_a_run_for_a_finished_target_leaves_another_plans_work_alone(
    interrupted: Interrupted, expected: dict[str, bytes]
) -> None:
    """While a new version is under way, asking for the old one is "already done" and no more."""
    float32 = {**PLAN, "dtype": "float32"}
    _assert_finished(interrupted.run(), interrupted, expected)
    died = interrupted.run(plan=float32, options={"overwrite": True}, die_at_step=AFTER_TWO_SHARDS)
    assert died.exit == KILLED
    before = state(interrupted.staging)
    again = interrupted.run()
    assert (again.error, again.already_done) == ("", True)
    assert state(interrupted.staging) == before
    replaced = interrupted.run(plan=float32, options={"overwrite": True})
    assert (replaced.error, replaced.kept) == ("", 2)


def test_an_input_written_to_during_the_run_is_noticed(
    vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from weightsmith.checkpoint.checkpoint import Checkpoint
    from weightsmith.errors import InputChanged
    from weightsmith.ops.apply_delta import apply_delta

    base, delta = (
        copied(vectors / "vicuna_v1_1" / side, tmp_path / side) for side in ("base", "delta")
    )
    shard = next(base.glob("pytorch_model-00001-of-*.bin"))
    read, calls = Checkpoint.read_into, []

    def read_and_touch(self: Checkpoint, name: str, start: int, buffer: memoryview) -> None:
        read(self, name, start, buffer)
        calls.append(name)
        if len(calls) >= 30:  # two workers count, and either may look when both have
            os.utime(shard, ns=(1, 1))

    monkeypatch.setattr(Checkpoint, "read_into", read_and_touch)
    with pytest.raises(InputChanged) as caught:
        apply_delta(base, delta, target=tmp_path / "out", repair=False, max_shard_nbytes=30_000)
    assert caught.value.values["file"] == str(shard)
    assert not (tmp_path / "out").exists()


def test_a_write_that_went_wrong_in_memory_or_on_disk_is_not_published(
    vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from weightsmith import fs
    from weightsmith.errors import VerificationFailed
    from weightsmith.ops.apply_delta import apply_delta

    write = fs.PositionedFile.write_from

    def write_one_bit_wrong(self: fs.PositionedFile, offset: int, buffer: memoryview) -> None:
        if self.path.suffix == ".safetensors" and offset > 20_000:
            buffer = memoryview(bytes([buffer[0] ^ 1]) + bytes(buffer[1:]))
        write(self, offset, buffer)

    monkeypatch.setattr(fs.PositionedFile, "write_from", write_one_bit_wrong)
    vector = vectors / "vicuna_v1_1"
    with pytest.raises(VerificationFailed) as caught:
        apply_delta(vector / "base", vector / "delta", target=tmp_path / "out", repair=False)
    assert ": tensor model." in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert list((staging(tmp_path / "out") / "receipts").iterdir()) == []

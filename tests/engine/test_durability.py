"""The order of writes and syncs that a power cut relies on: nothing is vouched for too early."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.folders import staging
from weightsmith import fs
from weightsmith.engine.options import Options, Verify
from weightsmith.errors import VerificationFailed
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.make_delta import make_delta


@dataclass
class Recorder:
    """Every sync and rename in the order in which they ended, by inode."""

    synced: list[int] = field(default_factory=list)
    events: list[tuple[str, Path]] = field(default_factory=list)
    unsynced_at: dict[str, set[str]] = field(default_factory=dict)
    """By file that was renamed into place: files beside it that were not on the medium yet."""

    def sync(self, fd: int) -> None:
        self.synced.append(os.fstat(fd).st_ino)
        self.events.append(("sync", Path(f"/proc/self/fd/{fd}").readlink()))

    def rename(self, old: Path, new: Path) -> None:
        self.unsynced_at[new.name] = {
            path.name
            for path in old.parent.iterdir()
            if path.is_file() and path.stat().st_ino not in self.synced
        }
        self.events.append(("rename", new))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recording = Recorder()
    sync, replace, rename = fs._sync_descriptor, Path.replace, os.rename

    def recorded_sync(fd: int) -> None:
        sync(fd)
        recording.sync(fd)

    def recorded_replace(self: Path, target: Path) -> Path:
        recording.rename(self, target)
        return replace(self, target)

    def recorded_rename(old: Path, new: Path) -> None:
        recording.events.append(("publish", new))
        rename(old, new)

    monkeypatch.setattr(fs, "_sync_descriptor", recorded_sync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    monkeypatch.setattr(os, "rename", recorded_rename)
    return recording


@pytest.mark.parametrize("verify", ["cache", "disk", "no"])
def test_everything_is_on_the_medium_before_it_is_vouched_for(
    verify: str, vectors: Path, tmp_path: Path, recorder: Recorder
) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc to tell a descriptor's file")
    vector, target = vectors / "vicuna_v1_1", tmp_path / "out"
    apply_delta(
        vector / "base",
        vector / "delta",
        target=target,
        max_shard_nbytes=30_000,
        options=Options(verify=verify),  # type: ignore[arg-type]
    )
    output, receipts = staging(target) / "output", staging(target) / "receipts"
    events = recorder.events

    # Every file that is published was synced before the manifest had its name.
    assert recorder.unsynced_at["weightsmith.json"] == set()
    published = {path.stat().st_ino for path in target.iterdir()}
    assert published <= set(recorder.synced)

    # A shard before its receipt.
    shards = sorted(path.name for path in target.glob("*.safetensors"))
    assert len(shards) >= 3
    for shard in shards:
        synced = events.index(("sync", output / shard))
        assert synced < events.index(("rename", receipts / f"{shard}.json"))

    # The names in the output before the manifest, its own name before the target's, that at last.
    manifest = events.index(("rename", output / "weightsmith.json"))
    publish = events.index(("publish", target))
    named = [place for place, event in enumerate(events) if event == ("sync", output)]
    before = [place for place in range(manifest) if events[place][0] == "rename"]
    before = [place for place in before if events[place][1].parent == output]
    assert any(max(before) < place < manifest for place in named)
    assert any(manifest < place < publish for place in named)
    tidying = staging(target)
    after = [event for event in events[publish:] if event[1].parent != tidying]
    assert after == [("publish", target), ("sync", tmp_path)]


def given(form: str, vectors: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A base and a delta, ``"added"`` or ``"exact"``; of the latter the whole files are known."""
    base, delta = (vectors / "vicuna_v1_1" / side for side in ("base", "delta"))
    if form == "added":
        return base, delta
    apply_delta(base, delta, target=tmp_path / "model", max_shard_nbytes=30_000)
    make_delta(base, tmp_path / "model", tmp_path / "delta")
    return base, tmp_path / "delta"


@pytest.mark.parametrize("form", ["added", "exact"])
def test_what_the_medium_holds_is_read_once_it_is_synced_and_forgotten(
    form: str, vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, delta = given(form, vectors, tmp_path)
    events: list[tuple[str, str, int, int]] = []
    sync, drop, read = (getattr(fs.PositionedFile, n) for n in ("sync", "drop_cache", "read_into"))

    def synced(file: fs.PositionedFile) -> None:
        sync(file)
        events.append(("sync", str(file.path), 0, 0))

    def dropped(file: fs.PositionedFile, offset: int = 0, nbytes: int = 0) -> None:
        drop(file, offset, nbytes)
        events.append(("drop", str(file.path), offset, nbytes))

    def was_read(file: fs.PositionedFile, offset: int, buffer: memoryview) -> None:
        read(file, offset, buffer)
        events.append(("read", str(file.path), offset, len(buffer)))

    monkeypatch.setattr(fs.PositionedFile, "sync", synced)
    monkeypatch.setattr(fs.PositionedFile, "drop_cache", dropped)
    monkeypatch.setattr(fs.PositionedFile, "read_into", was_read)
    target = tmp_path / "out"
    apply_delta(base, delta, target=target, options=Options(verify="disk"))
    shards = sorted(target.glob("*.safetensors"))
    assert shards
    for shard in shards:
        path = str(staging(target) / "output" / shard.name)
        at = events.index(("drop", path, 0, 0), events.index(("sync", path, 0, 0)))
        spans = [event for event in events[at:] if event[:2] == ("read", path)]
        read_bytes = {
            byte for _, _, start, nbytes in spans for byte in range(start, start + nbytes)
        }
        assert len(read_bytes) == shard.stat().st_size


@pytest.mark.parametrize(
    "form, verify", [("added", "cache"), ("added", "disk"), ("exact", "cache"), ("exact", "no")]
)
def test_bytes_that_others_put_behind_a_file_are_not_published(
    form: str, verify: Verify, vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, delta = given(form, vectors, tmp_path)
    reserve = fs.PositionedFile.reserve

    def reserve_more(file: fs.PositionedFile, nbytes: int) -> None:
        reserve(file, nbytes + 1)

    monkeypatch.setattr(fs.PositionedFile, "reserve", reserve_more)
    with pytest.raises(VerificationFailed):
        apply_delta(base, delta, target=tmp_path / "out", options=Options(verify=verify))
    assert not (tmp_path / "out").exists()

"""The order of writes and syncs that a power cut relies on: nothing is vouched for too early."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.engine.folders import staging
from weightsmith import fs
from weightsmith.engine.bindings import Options
from weightsmith.ops.apply_delta import apply_delta


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
    assert events[publish:] == [("publish", target), ("sync", tmp_path)]

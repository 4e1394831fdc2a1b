"""Files of a folder in use are replaced whole, and nothing else is touched."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from weightsmith import fs
from weightsmith.engine.in_place import replace_files, workshop
from weightsmith.errors import DiskFull, InputChanged, StagingBusy, TargetUnwritable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_bytes(b"old")
    return tmp_path


def replace(folder: Path, after: bytes | None = b"new", **before: bytes) -> None:
    with workshop(folder, "repair") as work:
        replace_files(folder, {"config.json": b"old"}, {"config.json": after}, work)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_old_content_is_kept_once(folder: Path) -> None:
    replace(folder)
    assert (folder / "config.json").read_bytes() == b"new"
    (folder / "config.json").write_bytes(b"old")
    (folder / "config.json.bak").write_bytes(b"the first")
    replace(folder, None)
    assert names(folder) == ["config.json.bak", "config.json.bak.2"]
    assert (folder / "config.json.bak").read_bytes() == b"the first"
    assert (folder / "config.json.bak.2").read_bytes() == b"old"


def test_somebody_s_file_under_a_temporary_name_is_not_touched(folder: Path) -> None:
    theirs = [folder / f"config.json{end}" for end in (".tmp", ".bak.tmp", ".new")]
    for path in theirs:
        path.write_bytes(b"theirs")
    replace(folder)
    assert {path.read_bytes() for path in theirs} == {b"theirs"}


def test_a_file_that_another_name_leads_to_is_not_written_to(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    os.link(folder / "config.json", other)
    replace(folder)
    assert other.read_bytes() == b"old"
    assert not (folder / "config.json.bak").samefile(other)


def test_the_mode_is_kept_and_a_new_file_is_no_more_open(folder: Path) -> None:
    (folder / "config.json").chmod(0o640)
    with workshop(folder, "repair") as work:
        new = {"config.json": b"new", "tokenizer.json": b"made"}
        replace_files(folder, {"config.json": b"old", "tokenizer.json": None}, new, work)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert set(modes.values()) == {0o640}
    assert len(modes) == 3


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="takes root")
def test_the_owner_is_kept(folder: Path) -> None:
    os.chown(folder / "config.json", 1234, 4321)
    replace(folder)
    for name in names(folder):
        state = (folder / name).stat()
        assert (state.st_uid, state.st_gid) == (1234, 4321)


def test_one_that_cannot_keep_its_owner_is_left_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError

    class OthersState:
        st_mode, st_uid, st_gid = 0o100644, 77777, 77777

    monkeypatch.setattr("weightsmith.engine.in_place._state", lambda path: OthersState)
    monkeypatch.setattr(os, "fchown", forbidden)
    with pytest.raises(TargetUnwritable, match="another user"):
        replace(folder)
    assert (folder / "config.json").read_bytes() == b"old"


def test_a_file_that_somebody_changed_meanwhile_is_left_as_it_is(folder: Path) -> None:
    (folder / "config.json").write_bytes(b"theirs")
    with pytest.raises(InputChanged):
        replace(folder)
    assert (folder / "config.json").read_bytes() == b"theirs"


def test_what_a_killed_run_left_is_deleted_and_a_live_one_s_is_not(folder: Path) -> None:
    left = folder / ".repair.weightsmith-0123456789abcdef"
    (left / "deep").mkdir(parents=True)
    with workshop(folder, "repair") as one:
        assert not left.exists()
        with workshop(folder, "repair") as other:
            assert one.exists()
            assert one != other
    assert names(folder) == ["config.json"]


def test_a_link_in_the_place_of_leftovers_is_not_followed(folder: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_bytes(b"1")
    (folder / ".repair.weightsmith-0").symlink_to(precious)
    replace(folder)
    assert (precious / "file").exists()


def test_a_full_disk_leaves_the_folder_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fs.PositionedFile, "_write_some", full)
    with pytest.raises(DiskFull):
        replace(folder)
    assert names(folder) == ["config.json"]


def lose_its_work(parent: Path) -> None:
    with workshop(parent, "fix") as work:
        shutil.rmtree(work)
        fs.open_for_reading(work / "new")


def test_work_that_another_run_deletes_is_laid_to_that_run(tmp_path: Path) -> None:
    """As on a file system that grants each lock to everybody."""
    with pytest.raises(StagingBusy, match="another run is writing"):
        lose_its_work(tmp_path)

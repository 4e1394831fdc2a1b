"""Files as the engine needs them: read and written whole, faults by name, never through a link."""

import errno
import os
import stat
from pathlib import Path

import pytest

from weightsmith import fs
from weightsmith.errors import (
    DiskFull,
    FileTooLarge,
    LinkBroken,
    NotRegularFile,
    ShardTruncated,
    SourceNotFound,
    SourceUnreadable,
    TargetUnwritable,
)

CONTENT = bytes(range(256)) * 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "file"
    found.write_bytes(CONTENT)
    return found


@pytest.mark.parametrize("positional", [True, False])
def test_short_reads_and_writes_of_the_system_are_gone_on_with(
    positional: bool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preadv, pwrite, read, write = os.preadv, os.pwrite, os.read, os.write
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, at: preadv(fd, [buffers[0][:7]], at))
    monkeypatch.setattr(os, "pwrite", lambda fd, buffer, at: pwrite(fd, buffer[:5], at))
    monkeypatch.setattr(os, "read", lambda fd, nbytes: read(fd, min(nbytes, 7)))
    monkeypatch.setattr(os, "write", lambda fd, buffer: write(fd, buffer[:5]))
    if not positional:
        monkeypatch.delattr(os, "preadv")
        monkeypatch.delattr(os, "pwrite")
    assert fs.open_for_reading(path).read(100, 3000) == CONTENT[100:3100]
    made = fs.create(path.with_name("made"))
    made.reserve(4000)
    made.write_from(500, memoryview(CONTENT[:3000]))
    assert made.path.read_bytes() == bytes(500) + CONTENT[:3000] + bytes(500)


def test_reading_beyond_the_end_says_where_it_is(path: Path) -> None:
    file = fs.open_for_reading(path)
    assert file.read(len(CONTENT), 0) == b""
    with pytest.raises(ShardTruncated, match=f"it ends at byte {len(CONTENT)}"):
        file.read(len(CONTENT) - 10, 11)


def test_a_fault_of_the_medium_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(SourceUnreadable, match="Input/output error"):
        fs.open_for_reading(path).read(0, 1)


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("call", ["pwrite", "posix_fallocate", "ftruncate", "fsync"])
def test_no_room_is_told_as_such_wherever_it_shows(
    call: str, fault: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(fault, os.strerror(fault))

    file = fs.create(path.with_name("made"))
    monkeypatch.setattr(os, call, full)

    def make() -> None:
        file.reserve(10)
        file.write_from(0, memoryview(b"x"))
        file.sync()

    with pytest.raises(DiskFull, match="made"):
        make()


@pytest.mark.parametrize("fault", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_a_file_system_that_cannot_reserve_still_gives_the_length(
    fault: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object) -> None:
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(os, "posix_fallocate", cannot)
    file = fs.create(path.with_name("made"))
    file.reserve(12345)
    assert file.size == 12345


def test_fsync_that_is_not_supported_is_no_fault_and_any_other_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = iter([errno.EINVAL, errno.ENOTSUP, errno.EIO])

    def failing(_: int) -> None:
        raise OSError(next(faults), "as told")

    file = fs.create(path)
    monkeypatch.setattr(os, "fsync", failing)
    file.sync()
    fs.sync_directory(path.parent)
    with pytest.raises(TargetUnwritable, match="as told"):
        file.sync()


def test_nothing_is_written_through_a_link(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    with pytest.raises(OSError, match="symbolic links"):
        fs.create(link)
    fs.write_durably(link, b"new")
    assert path.read_bytes() == CONTENT
    assert not link.is_symlink()
    assert link.read_bytes() == b"new"


def test_a_small_file_is_replaced_whole_or_not_at_all(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        """At a durable step."""

    seen = []

    def stop() -> None:
        seen.append(path.read_bytes())
        if len(seen) == 1:
            raise Stopped

    monkeypatch.setattr(fs, "on_durable_step", stop)
    with pytest.raises(Stopped):
        fs.write_durably(path, b"new")
    assert path.read_bytes() == CONTENT
    fs.write_durably(path, b"new")
    assert seen == [CONTENT, CONTENT, b"new"]
    assert sorted(each.name for each in path.parent.iterdir()) == ["file"]


def test_files_have_the_mode_that_the_umask_gives(path: Path) -> None:
    before = os.umask(0o027)
    try:
        fs.write_durably(path.with_name("made"), b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.with_name("made").stat().st_mode) == 0o640


def test_what_is_missing_or_no_file_is_told_apart(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    expected = {
        "gone": SourceNotFound,
        "fifo": NotRegularFile,
        ".": NotRegularFile,
        "loop": LinkBroken,
        "x" * 300: SourceUnreadable,
        "a\0b": SourceUnreadable,
    }
    for name, error in expected.items():
        with pytest.raises(error):
            fs.open_for_reading(tmp_path / name)


def test_a_small_file_that_is_not_small_is_refused_unread(path: Path) -> None:
    assert fs.read_small(path, len(CONTENT)) == CONTENT
    with pytest.raises(FileTooLarge, match=f"{len(CONTENT)} bytes, more than"):
        fs.read_small(path, len(CONTENT) - 1)


def test_a_descriptor_lives_as_long_as_its_last_reader(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, close = list[int](), os.close

    def close_and_tell(descriptor: int) -> None:
        closed.append(descriptor)
        close(descriptor)

    file = fs.open_for_reading(path)
    descriptor = file.fileno()
    monkeypatch.setattr(os, "close", close_and_tell)
    other = file
    del file
    assert other.read(0, 3) == CONTENT[:3]
    assert descriptor not in closed
    del other
    assert descriptor in closed


def test_what_is_written_while_we_read_unnoticed_stays_as_new_as_it_is(path: Path) -> None:
    before = path.stat()
    with fs.open_unnoticed(path):
        os.utime(path, ns=(before.st_atime_ns + 10**9, before.st_mtime_ns + 10**9))
    after = path.stat()
    assert after.st_atime_ns == before.st_atime_ns
    assert after.st_mtime_ns == before.st_mtime_ns + 10**9


def test_a_medium_that_takes_nothing_ends_the_run_instead_of_being_asked_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = fs.create(tmp_path / "x")
    monkeypatch.setattr(fs.PositionedFile, "_write_some", lambda *_: 0)
    with pytest.raises(TargetUnwritable, match="no byte was taken"):
        file.write_from(0, memoryview(b"some"))

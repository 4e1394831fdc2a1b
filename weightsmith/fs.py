"""Positional file access and durable file operations, on every system; imported by all, like
`errors`.

The only module that calls ``preadv``, ``pwrite``, ``posix_fadvise``, ``posix_fallocate`` or
``fsync``. Where a system lacks one, it does the same by other means (seek and read under a lock) or
leaves it out (cache advice, and directory fsync, which Windows neither has nor needs).

A *durable step* is an operation after which a crash finds the file system in a new state that a
later run relies on. Each calls `on_durable_step`, which tests replace to end the process there.
"""

import contextlib
import ctypes
import difflib
import errno
import functools
import io
import mmap
import os
import secrets
import shutil
import stat
import sys
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from weightsmith.errors import (
    DamagedInput,
    DiskFull,
    FileTooLarge,
    LinkBroken,
    NotRegularFile,
    ShardTruncated,
    SourceFault,
    SourceIsFile,
    SourceNotFound,
    SourceUnreadable,
    TargetUnwritable,
)

TOO_MANY_FILES: Final = {errno.EMFILE, errno.ENFILE}
MORE_FILES: Final = "let more files be open at once: ulimit -n 1024"
_BINARY: Final = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_LISTED: Final = 1000
"""Names of a directory among which a misspelt one is looked for."""
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CACHESTAT: Final = 451
"""The number of this system call, the same on all processors but Alpha; no C library names it."""
_FAILING: Final = {errno.EIO, errno.EROFS}
"""A medium that fails; a file system that met that is made read-only."""
_LACKING: Final = {errno.ENOSYS, errno.EINVAL, errno.ESPIPE, errno.EPERM}
"""What a system says that has no such call, or forbids it."""


def on_durable_step() -> None:
    """Do nothing; tests replace this to stop the process at the n-th durable step."""


def _durable() -> None:
    on_durable_step()


class Identity(NamedTuple):
    """What the system says of a file, of which something changes whenever the file is replaced or
    written to.
    """

    device: int
    inode: int
    nbytes: int
    mtime_ns: int
    """When its content was changed last, as far as whoever changed it has not set it back."""
    ctime_ns: int
    """When anything of it was changed last: content, mode, owner, names. Nobody can set it."""


def identity_of(state: os.stat_result) -> Identity:
    """The identity in what ``stat`` says."""
    return Identity(state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


class Readable(ABC):
    """Bytes at explicit offsets: a file, or what stands for one."""

    path: Path
    """Its name, for messages."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes in it."""

    @abstractmethod
    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`."""

    def read(self, offset: int, nbytes: int) -> bytes:
        """`nbytes` from `offset`; for headers and other small things."""
        buffer = bytearray(nbytes)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def is_cached(self, offset: int, nbytes: int) -> bool:  # noqa: ARG002
        """Whether the page cache holds most of this range; True where there is none."""
        return True

    def drop_cache(self, offset: int, nbytes: int) -> None:  # noqa: B027  (nothing, as a rule)
        """Give the page cache of this range back, where there is one."""

    def fileno(self) -> int:
        """The descriptor, for a memory map.

        Raises: UnsupportedOperation, of what is no file of this machine.
        """
        raise io.UnsupportedOperation


class PositionedFile(Readable):
    """An open file that threads read or write at explicit offsets.

    The descriptor closes with the last reference, so a reader may drop it from a table while
    another thread is still reading.
    """

    _fd: int = -1
    """None yet: a signal may come before there is one."""

    def __init__(self, path: Path, fd: int) -> None:
        """Take over the open descriptor `fd` of `path`; use `open_for_reading` or `create`."""
        self.path = path
        self._fd = fd
        self._seek_lock = threading.Lock()

    def __del__(self) -> None:
        """Close the descriptor."""
        with contextlib.suppress(OSError):
            os.close(self._fd)

    def stat(self) -> os.stat_result:
        """``fstat`` of the open descriptor."""
        return os.fstat(self._fd)

    def fileno(self) -> int:
        """The descriptor, for a memory map; this object keeps owning it."""
        return self._fd

    @property
    def size(self) -> int:
        """Bytes in the file now."""
        return self.stat().st_size

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset`.

        Raises: ShardTruncated, if the file ends first; SourceUnreadable, if the system fails to
        read.
        """
        done = 0
        try:
            while done < len(buffer):
                count = self._read_some(offset + done, buffer[done:])
                if count == 0:
                    reason = f"it ends at byte {offset + done}"
                    raise ShardTruncated(file=self.path, reason=reason)
                done += count
        except OSError as error:
            raise SourceUnreadable(file=self.path, reason=error.strerror) from error

    def is_cached(self, offset: int, nbytes: int) -> bool:
        """Whether the page cache holds most of this range; True where the system does not tell.

        Of a file on overlayfs, whose pages are another file's, always False.
        Source: Linux cachestat(2), since 6.5.
        """
        if syscall := _libc_function("syscall"):
            place, found = (ctypes.c_uint64 * 2)(offset, nbytes), (ctypes.c_uint64 * 5)()
            if syscall(ctypes.c_long(_CACHESTAT), self._fd, place, found, 0) == 0:
                pages: int = found[0]
                return 2 * pages * mmap.PAGESIZE >= nbytes
        return True

    def write_from(self, offset: int, buffer: memoryview) -> None:
        """Write all of `buffer` at `offset`.

        Raises: DiskFull, if the file system, a quota or a size limit refuses; TargetUnwritable, if
        it fails, or takes nothing and says no reason: to go on asking might take for ever.
        """
        done = 0
        with translated_write_errors(self.path):
            while done < len(buffer):
                count = self._write_some(offset + done, buffer[done:])
                if count == 0:
                    raise OSError(errno.EIO, "no byte was taken")
                done += count

    def _read_some(self, offset: int, buffer: memoryview) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._fd, [buffer], offset)
        with self._seek_lock:
            os.lseek(self._fd, offset, os.SEEK_SET)
            chunk = os.read(self._fd, len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def _write_some(self, offset: int, buffer: memoryview) -> int:
        if hasattr(os, "pwrite"):
            return os.pwrite(self._fd, buffer, offset)
        with self._seek_lock:
            os.lseek(self._fd, offset, os.SEEK_SET)
            return os.write(self._fd, buffer)

    def reserve(self, nbytes: int) -> None:
        """Make the file `nbytes` long with its blocks set aside, so that a full disk shows now
        and not later.
        """
        with translated_write_errors(self.path):
            if hasattr(os, "posix_fallocate") and nbytes:
                try:
                    os.posix_fallocate(self._fd, 0, nbytes)
                except OSError as error:
                    if error.errno not in {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}:
                        raise
            os.ftruncate(self._fd, nbytes)

    def start_writeback(self, offset: int, nbytes: int) -> None:
        """Let the system begin to write this range out, so that `sync` finds little left to do.

        Source: Linux sync_file_range(2) with SYNC_FILE_RANGE_WRITE; elsewhere nothing happens.
        """
        if sync_file_range := _libc_function("sync_file_range"):
            begin_writing = 2
            sync_file_range(self._fd, ctypes.c_int64(offset), ctypes.c_int64(nbytes), begin_writing)

    def give_back(self, offset: int, nbytes: int) -> None:
        """Wait until this range is written out, and let the page cache forget it.

        The memory serves what is written next: that is faster than taking fresh memory for a whole
        file, and pushes nothing of others out of the cache.
        Source: Linux sync_file_range(2), which may be the only one that is told of an error, by
        whatever number the medium has for it; elsewhere the system is only advised to forget.
        """
        if sync_file_range := _libc_function("sync_file_range"):
            write_and_wait = 1 | 2 | 4
            span = (ctypes.c_int64(offset), ctypes.c_int64(nbytes))
            with translated_write_errors(self.path):
                if sync_file_range(self._fd, *span, write_and_wait) != 0:
                    code = ctypes.get_errno()
                    if code not in _LACKING:
                        raise OSError(code, os.strerror(code), str(self.path))
        self.drop_cache(offset, nbytes)

    def drop_cache(self, offset: int = 0, nbytes: int = 0) -> None:
        """Tell the system that this range (0: to the end) need not stay in its page cache."""
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):
                os.posix_fadvise(self._fd, offset, nbytes, os.POSIX_FADV_DONTNEED)

    def sync(self) -> None:
        """Make contents and length survive a power cut (a durable step)."""
        with translated_write_errors(self.path):
            _sync_descriptor(self._fd)
        _durable()


def open_for_reading(path: Path, *, hidden: bool = False) -> PositionedFile:
    """Open a regular file, following links, without ever blocking on a FIFO.

    `hidden`: reading it does not count as using it, where the system grants that.
    Raises: SourceNotFound, LinkBroken, SourceUnreadable, NotRegularFile.
    """
    flags = os.O_RDONLY | _BINARY | getattr(os, "O_NONBLOCK", 0)
    with translated_read_errors(path):
        if not stat.S_ISREG(path.stat().st_mode):
            raise NotRegularFile(file=path)
        file = PositionedFile(path, _open_hidden(path, flags) if hidden else os.open(path, flags))
    if not stat.S_ISREG(file.stat().st_mode):
        raise NotRegularFile(file=path)
    return file


def _open_hidden(path: Path, flags: int) -> int:
    """Linux grants it to the owner of a file only."""
    try:
        return os.open(path, flags | getattr(os, "O_NOATIME", 0))
    except PermissionError:
        return os.open(path, flags)


@contextlib.contextmanager
def open_unnoticed(path: Path) -> Iterator[PositionedFile]:
    """Open for reading as above; the access time stays what it was, where the system lets us.

    Who goes by last use, to clean up, should not take a check for a use.
    Raises: as `open_for_reading`.
    """
    with translated_read_errors(path):
        before = path.stat()
    try:
        yield open_for_reading(path, hidden=True)
    finally:
        with contextlib.suppress(OSError):
            now = path.stat()  # whose time of writing may be new, and is not ours to change
            if now.st_atime_ns != before.st_atime_ns:
                os.utime(path, ns=(before.st_atime_ns, now.st_mtime_ns))


def create(
    path: Path, mode: int = 0o666, *, exclusive: bool = False, keep: bool = False
) -> PositionedFile:
    """Create or empty a file for reading and writing, with ``mode & ~umask``; never through a
    link. With `keep`, what is in it stays.

    Raises: FileExistsError, if it must be a new one (`exclusive`) and the name is taken.
    """
    flags = os.O_RDWR | os.O_CREAT | _BINARY | getattr(os, "O_NOFOLLOW", 0)
    flags |= os.O_EXCL if exclusive else 0 if keep else os.O_TRUNC
    with translated_write_errors(path):
        return PositionedFile(path, os.open(path, flags, mode))


def open_lock(path: Path) -> int:
    """The descriptor of a lock file, which is made if it is not there; never through a link, and
    never waiting for whoever is at the other end of a FIFO.

    Raises: OSError, also where something else lies there.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | _BINARY
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    fd = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no file", str(path))
    return fd


def read_small(path: Path, limit_bytes: int) -> bytes:
    """The whole of a small regular file.

    Raises: FileTooLarge, if it is larger than `limit_bytes`; and as `open_for_reading`.
    """
    file = open_for_reading(path)
    size = file.size
    if size > limit_bytes:
        raise FileTooLarge(file=path, nbytes=size, limit=limit_bytes)
    return file.read(0, size)


def write_durably(
    path: Path, content: bytes | Iterable[bytes | memoryview], *, mode: int = 0o666
) -> os.stat_result:
    """Write a file whole, all at once or in pieces: temporary name, fsync, rename (two durable
    steps). Its permissions are ``mode & ~umask``. Returns what the system says of it before the
    rename.

    The name is nobody else's: what lies under a name that can be guessed may be somebody's file.
    """
    partial = path.with_name(f".weightsmith-{secrets.token_hex(8)}.tmp")
    file = create(partial, mode, exclusive=True)
    try:
        offset = 0
        for piece in [content] if isinstance(content, bytes) else content:
            file.write_from(offset, memoryview(piece))
            offset += len(piece)
        file.sync()
        state = file.stat()
        rename(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return state


def read_if_file(path: Path) -> bytes | None:
    """The whole of a regular file; None where there is none, or it was cut while it was read.

    Raises: SourceUnreadable: a file that cannot be read just now is not taken for none.
    """
    try:
        file = open_for_reading(path)
        return file.read(0, file.size)
    except SourceUnreadable:
        raise
    except (SourceFault, DamagedInput):
        return None


def write_scratch(path: Path, content: bytes) -> None:
    """Write a file that need not last.

    Unlike Python's own files it gives up where a medium takes no byte and says no reason.
    Raises: DiskFull, TargetUnwritable.
    """
    create(path).write_from(0, memoryview(content))


def restrict(directory: Path, modes: Iterable[int]) -> None:
    """Take from a directory the permissions of others that any of `modes` lacks."""
    mode = directory.stat().st_mode
    kept = mode
    for each in modes:
        kept &= each | ~0o077
    if kept != mode:
        directory.chmod(stat.S_IMODE(kept))


def rename(old: Path, new: Path) -> None:
    """Rename, replacing what may be there (a durable step once the parent is synced)."""
    with translated_write_errors(new):
        old.replace(new)
    _durable()


def delete(path: Path) -> None:
    """Delete a directory with all in it, a file or a link, as far as the system lets us."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def sync_directory(path: Path) -> None:
    """Make the names in a directory survive a power cut (a durable step)."""
    if sys.platform != "win32" and hasattr(os, "O_DIRECTORY"):
        with translated_write_errors(path):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                _sync_descriptor(fd)
            finally:
                os.close(fd)
    _durable()


def exchange(left: Path, right: Path) -> bool:
    """Swap two names atomically (a durable step); False where the system or file system cannot.

    Source: Linux renameat2(2) with RENAME_EXCHANGE.
    """
    renameat2 = _libc_function("renameat2")
    if renameat2 is None:
        return False
    at_cwd, rename_exchange = -100, 2
    if renameat2(at_cwd, os.fsencode(left), at_cwd, os.fsencode(right), rename_exchange) != 0:
        return False
    _durable()
    return True


@functools.cache
def _libc_function(name: str) -> Callable[..., int] | None:
    """A function of Linux's C library that Python does not offer; None where there is none."""
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None, use_errno=True), name, None)


def _sync_descriptor(fd: int) -> None:
    """``fsync``, or on macOS ``F_FULLFSYNC``, which alone reaches the medium there; EINVAL means
    "not supported".
    """
    try:
        if sys.platform == "darwin":
            import fcntl

            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fsync(fd)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise


def file_state(path: Path) -> os.stat_result | None:
    """What the system says of a regular file, at one moment: others may be at work there.

    None where there is none, or none any more.
    """
    try:
        state = path.stat()
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            return None
        raise
    return state if stat.S_ISREG(state.st_mode) else None


def free_nbytes(path: Path) -> int | None:
    """Bytes that still fit on the disk that holds a path; None where the system does not tell.

    Some file systems, a network's and one of memory without a limit among them, say that they have
    no bytes at all.
    """
    usage = shutil.disk_usage(path)
    return usage.free if usage.total else None


def require_directory(path: Path) -> None:
    """Raises: SourceNotFound, LinkBroken, SourceIsFile, SourceUnreadable."""
    with translated_read_errors(path):
        if not stat.S_ISDIR(path.stat().st_mode):
            raise SourceIsFile(source=path, directory=path.parent)


def missing(path: Path) -> SourceFault:
    """The error for a path that leads to nothing, with the name beside it that may be meant."""
    with contextlib.suppress(OSError):  # it is no link
        return LinkBroken(file=path, target=path.readlink())
    try:
        names = os.listdir(path.parent)  # noqa: PTH208  (names are all that is wanted)
    except OSError:
        return SourceNotFound(source=path)
    near = difflib.get_close_matches(path.name, names if len(names) <= _LISTED else [], n=1)
    hint = f"did you mean {path.with_name(near[0])}?" if near else None
    context = [f"{path.parent} exists"] if path.parent.name else []
    return SourceNotFound(source=path, hint=hint, context=context)


@contextlib.contextmanager
def scratch_directory() -> Iterator[Path]:
    """A directory among the system's temporary ones, deleted with all in it at the end.

    Raises: DiskFull, TargetUnwritable, if none can be made.
    """
    try:
        where = tempfile.gettempdir()
        with translated_write_errors(Path(where)):
            made = tempfile.TemporaryDirectory(
                prefix="weightsmith-", dir=where, ignore_cleanup_errors=True
            )
    except OSError as error:
        hint = "name another directory for what is temporary: TMPDIR=DIR"
        where = os.environ.get("TMPDIR", "the directory for temporary files")
        raise TargetUnwritable(where=where, reason=error.strerror, hint=hint) from error
    with made as path:
        yield Path(path)


@contextlib.contextmanager
def translated_read_errors(path: Path) -> Iterator[None]:
    """Turn the system's errors while opening an input into ours."""
    try:
        yield
    except FileNotFoundError as error:
        raise missing(path) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if isinstance(error, OSError) and error.errno == errno.ELOOP and path.is_symlink():
            raise missing(path) from error
        number, reason = getattr(error, "errno", None), getattr(error, "strerror", None)
        hint = MORE_FILES if number in TOO_MANY_FILES else None
        raise SourceUnreadable(file=path, reason=reason or error, hint=hint) from error


@contextlib.contextmanager
def translated_write_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, quota or size limit into DiskFull, a failing one into TargetUnwritable;
    let other errors of writing through.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(file=path, reason=error.strerror) from error
        if error.errno in _FAILING:
            raise TargetUnwritable(where=path, reason=error.strerror) from error
        raise

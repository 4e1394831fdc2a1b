"""File systems of our own, which nobody else sees: full ones, read-only ones, other devices.

They are mounted in a namespace of this process and of those that it starts, and go with it.
Source: Linux mount(2), unshare(2), user_namespaces(7).
"""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_NEW_MOUNTS: Final = 0x00020000
_NEW_USERS: Final = 0x10000000
_RDONLY: Final = 1
_REMOUNT: Final = 32
_BIND: Final = 4096
_PRIVATE: Final = 1 << 18 | 16384
"""For all mounts below as well."""
_DETACH: Final = 2


def enter() -> str:
    """Get a namespace of mounts for this process; why that cannot be, or nothing.

    To be called before any thread is started. Who may not mount becomes root of a namespace of
    users first, where that is allowed.
    """
    if sys.platform != "linux":
        return "mounts of one's own are Linux's"
    user, group = os.geteuid(), os.getegid()
    try:
        if user:
            _call("unshare", _NEW_USERS | _NEW_MOUNTS)
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {user} 1")
            Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        else:
            _call("unshare", _NEW_MOUNTS)
        _mount("none", Path("/"), _PRIVATE)
    except OSError as error:
        return f"the system allows no mounts: {error.strerror}"
    return ""


def bind_privately(source: Path, place: Path) -> None:
    """Let a directory stand at another place too, for this process alone."""
    _call("unshare", _NEW_MOUNTS)
    _mount("none", Path("/"), _PRIVATE)
    _mount(str(source), place, _BIND)


@contextlib.contextmanager
def memory(place: Path, *, nbytes: int = 0, entries: int = 0) -> Iterator[None]:
    """An empty file system at a directory; with so much room, 0: any."""
    _mount("tmpfs", place, 0, _room(nbytes, entries))
    try:
        yield
    finally:
        _call("umount2", os.fsencode(place), _DETACH)


def make_room(place: Path) -> None:
    """Let a file system of ours hold anything."""
    _mount("tmpfs", place, _REMOUNT, _room(0, 0))


@contextlib.contextmanager
def elsewhere(place: Path, source: Path) -> Iterator[None]:
    """Another directory stands at a directory's place."""
    _mount(str(source), place, _BIND)
    try:
        yield
    finally:
        _call("umount2", os.fsencode(place), _DETACH)


@contextlib.contextmanager
def read_only(place: Path) -> Iterator[None]:
    """Nobody can write below a directory."""
    _mount(str(place), place, _BIND)
    try:
        _mount("none", place, _REMOUNT | _BIND | _RDONLY)
        yield
    finally:
        _call("umount2", os.fsencode(place), _DETACH)


def _room(nbytes: int, entries: int) -> str:
    return f"mode=755,size={nbytes},nr_inodes={entries}"


def _mount(source: str, place: Path, flags: int, options: str = "") -> None:
    kind = b"tmpfs" if source == "tmpfs" else None
    where, data = os.fsencode(place), options.encode()
    _call("mount", os.fsencode(source), where, kind, ctypes.c_ulong(flags), data)


def _call(name: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))

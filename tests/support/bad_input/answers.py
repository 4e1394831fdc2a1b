"""Run a case's command line, in this process or in one that may do less, and keep all it said."""

import contextlib
import hashlib
import io
import multiprocessing
import os
import re
import resource
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from stat import S_ISLNK, S_ISREG
from typing import Final

from tests.support.bad_input.case import Case
from weightsmith.cli.main import run

NOBODY: Final = 65534
_HASHED_NBYTES: Final = 1_000_000
_OF_MACHINE: Final = re.compile(r"[\d.]+ [kMGTP]?i?B(?= (?:free|of memory available))")

State = dict[str, tuple[int, int, int, str]]


@dataclass(frozen=True, slots=True)
class Said:
    """How one run ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A case's two runs, for a person and for a program, and the folder around them."""

    human: Said
    json: Said
    before: State
    after: State

    @property
    def last_words(self) -> str:
        """What a person reads last: the error, its context and its hint."""
        return self.human.err[self.human.err.find("error: ") :].rstrip("\n")


def answer(case: Case) -> Answer:
    """Build a case in a folder of its own and run it twice."""
    with tempfile.TemporaryDirectory(prefix="weightsmith-bad-") as name:
        folder = Path(name).resolve()
        # A case is about its own fault: somebody else may do in this folder what its owner may.
        folder.chmod(0o777)
        args = ["apply-delta", *case.build(folder)]
        before = state(folder)
        human, json = _both(case, folder, args)
        return Answer(human, json, before, state(folder))


def command(folder: Path, args: Sequence[str]) -> Said:
    """Run one command line in a folder.

    What it says of that folder is made relative to it, and what there is of this machine left out.
    """
    raw = io.BytesIO(), io.BytesIO()
    out, err = (io.TextIOWrapper(each, encoding="utf-8") for each in raw)
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = run(args)
        out.flush()
        err.flush()
    texts = (each.getvalue().decode().replace(f"{folder}/", "") for each in raw)
    return Said(code, *(_OF_MACHINE.sub("SIZE", text.replace(str(folder), ".")) for text in texts))


def state(folder: Path) -> State:
    """Size, time, mode and content (the first megabyte) of everything below, by path."""
    found: State = {}
    for parent, directories, files in os.walk(folder):
        for name in (*directories, *files):
            path = f"{parent}/{name}"
            stat = os.lstat(path)
            facts = (stat.st_size, stat.st_mtime_ns, stat.st_mode, _content(path, stat))
            found[path.removeprefix(f"{folder}/")] = facts
    return found


def _content(path: str, stat: os.stat_result) -> str:
    if S_ISLNK(stat.st_mode):
        return os.readlink(path)  # noqa: PTH115  (paths are too slow for 100000 entries)
    if not S_ISREG(stat.st_mode) or not stat.st_size:
        return ""
    with open(path, "rb") as file:  # noqa: PTH123
        return hashlib.sha256(file.read(_HASHED_NBYTES)).hexdigest()


# --- processes that may do less -------------------------------------------------------------------


def _both(case: Case, folder: Path, args: Sequence[str]) -> tuple[Said, Said]:
    """Run for a person and for a program, with no more rights and room than the case has."""
    uid = NOBODY if case.unprivileged and os.geteuid() == 0 else None
    if uid is None and not case.file_size_limit:
        return command(folder, args), command(folder, [*args, "--json"])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.bad_input.warm"])
    ours, theirs = context.Pipe(duplex=False)
    work = (theirs, folder, args, uid, case.file_size_limit)
    process = context.Process(target=_serve, args=work, daemon=True)
    process.start()
    theirs.close()
    try:
        said: tuple[Said, Said] = ours.recv()
    finally:
        process.kill()
        process.join()
    return said


def _serve(
    connection: Connection, folder: Path, args: Sequence[str], uid: int | None, limit: int
) -> None:
    """Run the command line with less rights, or less room, than this process has now."""
    os.chdir(folder)  # the way back, too, must be open to somebody else
    if limit:
        sys.dont_write_bytecode = True  # what is cut short would be read by every later process
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if uid is not None:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    connection.send((command(folder, args), command(folder, [*args, "--json"])))

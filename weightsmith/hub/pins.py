"""Pins: small files of ours in the hub's cache, each of which says what a model that was removed is
rebuilt from.

A pin lies in the folder of each repository that it keeps, beside ``blobs`` and ``snapshots``, where
the hub library looks for nothing. It keeps revisions of that repository alone, whatever else it
says, so that one which somebody else wrote can keep no more than where it lies.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from weightsmith import fs
from weightsmith.errors import CacheBusy, TargetUnwritable, WeightsmithError
from weightsmith.formats.strict_json import parse_json
from weightsmith.hub.cache import Cache
from weightsmith.units import counted

FOLDER: Final = "weightsmith-pins"
SCHEMA: Final = "weightsmith.pin/1"
_LIMIT_NBYTES: Final = 1_000_000
_WAIT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Commit:
    """A model repository at one commit."""

    repo_id: str
    commit: str

    def __str__(self) -> str:
        """``org/name@commit``, whole, as every command takes it."""
        return f"{self.repo_id}@{self.commit}"

    @property
    def short(self) -> str:
        """``org/name@commit``, the commit's first twelve digits."""
        return f"{self.repo_id}@{self.commit[:12]}"

    @property
    def folder(self) -> str:
        """The name of the repository's folder in the cache."""
        return f"models--{self.repo_id.replace('/', '--')}"

    @classmethod
    def parse(cls, text: object) -> Self:
        """The inverse of `str`. Raises: ValueError."""
        if not isinstance(text, str):
            raise ValueError(f"{text!r} is no text")  # noqa: TRY004  one error for what is no pin
        repo_id, at, commit = text.partition("@")
        if not (repo_id and at and commit) or not text.isprintable():
            raise ValueError(f"{text!r} is no ORG/NAME@COMMIT")
        return cls(repo_id, commit)


@dataclass(frozen=True, slots=True)
class Pin:
    """The record of what a removed model can be rebuilt from."""

    model: Commit
    base: tuple[Commit, ...]
    """The base; of a delta on other deltas, these too."""
    delta: Commit | Path
    """In the cache, or a directory of this machine."""
    files: tuple[tuple[str, int], ...]
    """Names and sizes of the files that were removed."""

    @property
    def kept(self) -> tuple[Commit, ...]:
        """The repositories that must stay in the cache, so that the model can be rebuilt."""
        return (*self.base, *((self.delta,) if isinstance(self.delta, Commit) else ()))

    def to_bytes(self) -> bytes:
        """The file."""
        document = {
            "schema": SCHEMA,
            "about": "weightsmith clean-cache keeps what this model is rebuilt from",
            "model": str(self.model),
            "base": list(map(str, self.base)),
            "delta": {"cached" if isinstance(self.delta, Commit) else "path": str(self.delta)},
            "files": dict(self.files),
        }
        return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """The inverse of `to_bytes`, of what anybody may have written.

        Raises: KeyError, TypeError, ValueError, AttributeError, if it is no pin.
        """
        if document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {document['schema']!r}")
        files, delta = document["files"], document["delta"]
        if not str(delta.get("path", "")).isprintable():
            raise ValueError("its delta has no printable path")
        if not files or not all(type(nbytes) is int for nbytes in files.values()):
            raise ValueError("it names no files")
        return cls(
            Commit.parse(document["model"]),
            tuple(map(Commit.parse, document["base"])),
            Path(delta["path"]) if "path" in delta else Commit.parse(delta["cached"]),
            tuple(files.items()),
        )


@dataclass(frozen=True, slots=True)
class FoundPin:
    """A file among a repository's pins."""

    path: Path
    pin: Pin | None
    """None if the file cannot be read as a pin."""
    fault: str = ""
    """Then why not, as a sentence."""


class Pins:
    """All pins of a cache, as they were found, and what they keep of what is there."""

    def __init__(self, cache: Cache) -> None:
        """Read them; `cache` was just scanned."""
        self._there = {
            Commit(each.repo_id, each.commit): each
            for each in cache.revisions
            if each.repo_type == "model"
        }
        paths = sorted(cache.root.glob(f"models--*/{FOLDER}/*.json"))
        self.found = tuple(_read(path) for path in paths)
        self._by_repo: dict[str, list[FoundPin]] = {}
        for each in self.found:
            if each.pin is None or self._leans(each.pin):
                self._by_repo.setdefault(each.path.parent.parent.name, []).append(each)

    def why_kept(self, folder: str, commit: str = "") -> str:
        """Why a repository, by the name of its folder, or one commit of it, must stay, as a clause;
        empty, if nothing leans on it.

        A pin that cannot be read keeps all of its repository: nobody knows what leans on it.
        """
        here = self._by_repo.get(folder, [])
        broken = [each.path for each in here if each.pin is None]
        models = [
            each.pin.model.short
            for each in here
            if each.pin is not None and (not commit or _keeps(each.pin, folder, commit))
        ]
        if models:
            more = f" and {counted(len(models) - 1, 'other model')}" if models[1:] else ""
            return f"{models[0]}{more} {'are' if more else 'is'} rebuilt from it"
        return f"its pin {broken[0].name} cannot be read" if broken else ""

    def faults(self) -> list[str]:
        """What is wrong with pins, and what models lean on that is gone; a sentence each."""
        said = [
            f"a pin keeps all of its repository: {each.fault}" for each in self.found if each.fault
        ]
        for pin in dict.fromkeys(each.pin for each in self.found if each.pin is not None):
            if not self._leans(pin):
                continue
            for needed in pin.kept:
                if needed not in self._there:
                    way = f"weightsmith download {needed}"
                    said.append(f"{pin.model.short} is rebuilt from what is gone: {way}")
            if isinstance(pin.delta, Path) and not pin.delta.is_dir():
                said.append(f"{pin.model.short} is rebuilt by {pin.delta}, which is gone")
        return list(dict.fromkeys(said))

    def idle(self) -> tuple[FoundPin, ...]:
        """Pins whose model is in the cache again with all its files, so that they keep nothing."""
        return tuple(
            each for each in self.found if each.pin is not None and not self._leans(each.pin)
        )

    def names(self, model: Commit) -> bool:
        """Whether a pin says what a model is rebuilt from."""
        return any(each.pin is not None and each.pin.model == model for each in self.found)

    def _leans(self, pin: Pin) -> bool:
        """Whether the model is still missing from the cache, in whole or in part."""
        there = self._there.get(pin.model)
        sizes = {} if there is None else {file.name: file.nbytes for file in there.files}
        return any(sizes.get(name) != nbytes for name, nbytes in pin.files)


def remove_pins(pins: Iterable[FoundPin]) -> None:
    """Remove pins that keep nothing; one that only its owner may remove is left where it is."""
    for each in pins:
        with contextlib.suppress(OSError):
            each.path.unlink()
            each.path.parent.rmdir()  # which fails as long as it holds others


def write_pin(root: Path, pin: Pin) -> None:
    """Write a pin into the folder of each repository that it keeps; it is durable afterwards.

    Raises: DiskFull; TargetUnwritable, also if such a folder is a link.
    """
    for name in dict.fromkeys(each.folder for each in pin.kept):
        folder = root / name / FOLDER
        if folder.is_symlink():
            raise TargetUnwritable(where=folder, reason="it is a link", hint="remove the link")
        with fs.translated_write_errors(folder):
            folder.mkdir(exist_ok=True)
        file = f"{pin.model.folder.removeprefix('models--')}--{pin.model.commit}.json"
        fs.write_durably(folder / file, pin.to_bytes())
        # The name first, then the folder's own: each must survive a power cut before anything goes.
        fs.sync_directory(folder)
        fs.sync_directory(folder.parent)


@contextlib.contextmanager
def cleaning(root: Path) -> Iterator[None]:
    """Be the only `clean-cache` that deletes here: between one's look at the pins and its deleting,
    no other may remove a model on the strength of what goes.

    Raises: CacheBusy.
    """
    from huggingface_hub.utils import WeakFileLock

    if not root.is_dir():
        yield
        return
    lock = root / ".locks" / "weightsmith-clean-cache.lock"
    with fs.translated_write_errors(lock):
        lock.parent.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(WeakFileLock(lock, timeout=_WAIT_S))
        except TimeoutError as error:
            raise CacheBusy(cache=root) from error
        yield


def _keeps(pin: Pin, folder: str, commit: str) -> bool:
    return any(each.commit == commit and each.folder == folder for each in pin.kept)


def _read(path: Path) -> FoundPin:
    try:
        pin = Pin.from_document(parse_json(fs.read_small(path, _LIMIT_NBYTES), path))
    except WeightsmithError as error:
        return FoundPin(path, None, str(error))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return FoundPin(path, None, f"{path} is no pin: {error}")
    return FoundPin(path, pin)

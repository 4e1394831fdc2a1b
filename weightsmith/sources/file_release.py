"""A release of encoded files: found in a directory, with what the catalogue knows of it."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.catalogue.load import alias
from weightsmith.catalogue.match import releases_named
from weightsmith.catalogue.schema import Encoding, Release
from weightsmith.checkpoint.discover import list_directory
from weightsmith.checkpoint.layout import layout_of
from weightsmith.checkpoint.whole_files import GZIP_MAGIC, WholeFiles
from weightsmith.errors import WeightsmithError
from weightsmith.sources.locate import label_of

_ZEROS: Final = bytes(4)
"""The first bytes of the XOR of two zip archives."""


@dataclass(frozen=True, slots=True)
class KnownFile:
    """An input file that must have a published hash; with another one the result would be wrong."""

    role: str
    path: Path
    algorithm: str
    digest: str


@dataclass(frozen=True)
class FileRelease:
    """A release whose files are encoded byte by byte: XORed with those of a base, or encrypted with
    a key stream. They are not weights before they are decoded.
    """

    directory: Path
    """The directory that holds the files: the one that was named, or the one folder in it."""
    encoding: Encoding
    """How the files are encoded, in the catalogue's word."""
    files: tuple[str, ...]
    """Names of its encoded files."""
    why: str
    """What it was taken for this by, as a clause."""
    label: str
    """The source as the user wrote it."""

    @cached_property
    def release(self) -> Release | None:
        """The catalogue's release whose name the directory, its parent or the source has."""
        place = Path(os.path.realpath(self.directory))
        for name in (place.name, place.parent.name, self.label.partition("@")[0]):
            for release, _ in releases_named(name):
                if release.encoding == self.encoding:
                    return release
        return None

    @property
    def published(self) -> dict[str, dict[str, str]]:
        """The hashes of the decoded files, by file and algorithm, if the release is known."""
        found: dict[str, dict[str, str]] = {}
        for group in self.release.checksums if self.release else ():
            if group.of == "result":
                for name, digest in group.files.items():
                    found.setdefault(name, {})[group.algorithm] = digest
        return found

    def needed(self, inputs: Mapping[str, WholeFiles]) -> Iterator[KnownFile]:
        """The base's files, or the key, and the hashes that this release needs them to have."""
        base = alias(self.release.base) if self.release else None
        if self.release is None or base is None:
            return
        for group in base.checksums:
            role = "key" if group.of == "meta" else "base"
            if role in inputs and (role == "key" or self.release.id in group.needed_by):
                source = inputs[role]
                for name in sorted(group.files.keys() & source.tensors.keys()):
                    path = source.directory / name
                    yield KnownFile(role, path, group.algorithm, group.files[name])

    def advice(self) -> Iterator[str]:
        """Sentences from the catalogue on the base's files that the release needs."""
        base = alias(self.release.base) if self.release else None
        if self.release is None or base is None:
            return
        yield f"{self.release.name} was made from {base.name}"
        for group in base.checksums:
            if self.release.id in group.needed_by:
                yield f"the catalogue has their hashes ({group.source}): {group.note}"
        yield from self.release.notes


def find_file_release(source: str | os.PathLike[str]) -> FileRelease | None:
    """Find a release of encoded files in a directory, or in the only folder of it that holds one.

    Published repositories keep the files in a folder beside the card and the script.
    """
    directory = Path(source)
    if not os.fspath(source) or not os.path.isdir(directory):  # noqa: PTH112  (never raises)
        return None
    names, folders = _listed(directory)
    places = [directory]
    if layout_of(names) is None:
        places = [directory / folder for folder in folders]
    found = [release for place in places if (release := _release(place, label_of(source)))]
    return found[0] if len(found) == 1 else None


def _listed(directory: Path) -> tuple[list[str], list[str]]:
    """The files and folders of a directory; none if it cannot be read, as opening it will say."""
    try:
        return list_directory(directory)
    except WeightsmithError:
        return [], []


def _release(directory: Path, label: str) -> FileRelease | None:
    names, _ = _listed(directory)
    layout = layout_of(names)
    if layout is None:
        return None
    if layout.kind == "keystream-release":
        return FileRelease(directory, "keystream-file", layout.files, layout.reason, label)
    combined = layout.kind == "huggingface" and layout.files
    if combined and all(_is_combined(directory / name) for name in layout.files):
        why = f"{layout.files[0]} begins with zeros where a torch file begins with PK"
        return FileRelease(directory, "xor-file", layout.files, why, label)
    return None


def _is_combined(path: Path) -> bool:
    """Whether a ``.bin`` file is XOR of two torch files, perhaps compressed, and no torch file."""
    if path.suffix != ".bin":
        return False
    try:
        file = fs.open_for_reading(path)
        start = file.read(0, min(file.size, len(_ZEROS)))
    except WeightsmithError:
        return False  # whoever opens it as a checkpoint says what is wrong with it
    return start == _ZEROS or start.startswith(GZIP_MAGIC)

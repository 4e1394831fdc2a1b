"""Find a release of whole files in a directory, and what the catalogue knows of it."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from weightsmith.catalogue.load import alias
from weightsmith.catalogue.recognise import named_like
from weightsmith.catalogue.schema import Encoding, Release
from weightsmith.checkpoint.discover import list_directory
from weightsmith.checkpoint.layout import Layout, layout_of
from weightsmith.checkpoint.whole_files import WholeFiles
from weightsmith.errors import WeightsmithError
from weightsmith.ops.job import KnownFile
from weightsmith.sources.locate import label_of


@dataclass(frozen=True)
class EncodedFiles:
    """A release of whole files that was found in a directory."""

    directory: Path
    """Where its files are: the directory itself, or the one folder in it that holds them."""
    layout: Layout
    label: str
    """The source as the user wrote it."""

    @property
    def encoding(self) -> Encoding:
        """The catalogue's word for it."""
        return "xor-file" if self.layout.kind == "xor-release" else "keystream-file"

    @cached_property
    def release(self) -> Release | None:
        """The release that the directory, or the one around it, or the source, is named like."""
        place = Path(os.path.realpath(self.directory))
        for name in (place.name, place.parent.name, self.label.partition("@")[0]):
            for release, _ in named_like(name):
                if release.encoding == self.encoding:
                    return release
        return None

    @property
    def published(self) -> dict[str, dict[str, str]]:
        """The hashes of what it decodes to, by file and algorithm, where the release is known."""
        found: dict[str, dict[str, str]] = {}
        for group in self.release.checksums if self.release else ():
            if group.of == "result":
                for name, digest in group.files.items():
                    found.setdefault(name, {})[group.algorithm] = digest
        return found

    def needed(self, inputs: Mapping[str, WholeFiles]) -> Iterator[KnownFile]:
        """The base's files, or the key, with the hashes that they must have for this release."""
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
        """What the catalogue says about the files of the base that it needs."""
        base = alias(self.release.base) if self.release else None
        if self.release is None or base is None:
            return
        yield f"{self.release.name} was made from {base.name}"
        for group in base.checksums:
            if self.release.id in group.needed_by:
                yield f"the catalogue has their hashes ({group.source}): {group.note}"
        yield from self.release.notes


def find_encoded(delta: str | os.PathLike[str]) -> EncodedFiles | None:
    """The release of whole files in a directory, or in the one folder of it that holds one.

    Published repositories keep the files in a folder beside the card and the script.
    """
    directory = Path(delta)
    if not os.fspath(delta) or not os.path.isdir(directory):  # noqa: PTH112  (never raises)
        return None
    places = [directory]
    if _layout(directory) is None:
        with contextlib.suppress(WeightsmithError):
            _, folders = list_directory(directory)
            places = [directory / folder for folder in folders if not folder.startswith(".")]
    found = [
        EncodedFiles(place, layout, label_of(delta))
        for place in places
        if (layout := _layout(place)) and layout.kind in {"xor-release", "keystream-release"}
    ]
    return found[0] if len(found) == 1 else None


def _layout(directory: Path) -> Layout | None:
    """What a directory holds; nothing, where it cannot be read: others will say so."""
    try:
        return layout_of(directory)
    except WeightsmithError:
        return None

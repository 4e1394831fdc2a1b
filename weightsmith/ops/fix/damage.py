"""Which files of a finished output are not what its manifest says, and what of them still is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.content import Content, inside
from weightsmith.checkpoint.discover import list_directory, sizes_beside
from weightsmith.checkpoint.opening import open_weight_file
from weightsmith.engine.file_hashes import rest_digest
from weightsmith.engine.manifest import File, Manifest, own_sidecars
from weightsmith.engine.spans import Advance, Buffers, digest_tensors
from weightsmith.errors import DamagedInput, SourceFault
from weightsmith.formats.tensors import TensorInfo
from weightsmith.ops.fix.put_in_place import identity
from weightsmith.units import counted, format_count


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """A file that is not what its manifest says."""

    name: str
    path: Path
    why: str
    """What is wrong with it, as a clause."""
    before: fs.Identity | None
    """The file's identity when it was read; None if there is no file."""


@dataclass(frozen=True, slots=True)
class DamagedWeights(DamagedFile):
    """A weight file: what of it can still be used."""

    opened: Checkpoint | None = None
    """The file as a checkpoint, if its header is right."""
    wrong: frozenset[str] = frozenset()
    """Names of the tensors that are wrong, if the header is right."""
    is_readable: bool = False
    """Whether it is a sound file by itself: it may be another one, and no damaged one."""


@dataclass(frozen=True, slots=True)
class Damage:
    """All that is wrong in a folder, and where the sound files say that their tensors are."""

    weights: tuple[DamagedWeights, ...]
    sidecars: tuple[DamagedFile, ...]
    held: Mapping[str, TensorInfo] = field(default_factory=dict)
    """Tensors of the files whose header is right, by name."""
    holders: Mapping[str, str] = field(default_factory=dict)
    """For each of them, the name of its file."""

    @property
    def files(self) -> tuple[DamagedFile, ...]:
        """The small ones first."""
        return (*self.sidecars, *self.weights)


def find_damage(
    folder: Path, manifest: Manifest, buffers: Sequence[Buffers], advance: Advance
) -> Damage:
    """Read every file that a manifest names, each by itself, so that one that cannot be opened does
    not keep the others from being checked.

    Memory: one span a worker.
    """
    weights: list[DamagedWeights] = []
    held: dict[str, TensorInfo] = {}
    holders: dict[str, str] = {}
    for name, said in manifest.files.items():
        path = folder / name
        before = identity(path)
        try:
            found = look_into(inside(folder, name), said, manifest.tensors, buffers, advance)
        except (DamagedInput, SourceFault) as error:
            weights.append(DamagedWeights(name, path, str(error), before))
            continue
        if found.opened is not None:
            infos = {each.info.name: each.info for each in found.opened.tensors.values()}
            held |= infos
            holders |= dict.fromkeys(infos, name)
        if found.why:
            weights.append(
                DamagedWeights(
                    name, path, found.why, before, found.opened, found.wrong, is_readable=True
                )
            )
    return Damage(tuple(weights), tuple(_sidecars(folder, manifest)), held, holders)


@dataclass(frozen=True, slots=True)
class Found:
    """A weight file that was held against its manifest."""

    why: str
    """What is wrong with it, as a clause; empty, if it is right."""
    opened: Checkpoint | None = None
    wrong: frozenset[str] = frozenset()


def look_into(
    path: Path,
    said: File,
    tensors: Mapping[str, str],
    buffers: Sequence[Buffers],
    advance: Advance = lambda _: None,
) -> Found:
    """Hold one weight file against what a manifest says of it, and the digests of its tensors.

    Raises: DamagedInput, SourceFault, if it cannot be opened.
    """
    opened = open_weight_file(path.parent, path.name)
    (file,) = opened.files
    if file.size != said.size:
        return Found(f"it has {counted(file.size, 'byte')} instead of {format_count(said.size)}")
    if file.header_digest != said.header_digest:
        return Found("its header was changed")
    infos = [each.info for each in opened.tensors.values()]
    found = digest_tensors(infos, opened.read_into, buffers, advance)
    wrong = frozenset(name for name, digest in found.items() if tensors.get(name) != digest)
    if wrong:
        what = f"{len(wrong)} of {counted(len(found), 'tensor')} differ"
        return Found(what + "s" * (len(wrong) == 1), opened, wrong)
    if said.rest_digest and said.rest_digest != rest_digest(path):
        return Found("bytes beside its tensors differ", opened)
    return Found("", opened)


def _sidecars(folder: Path, manifest: Manifest) -> list[DamagedFile]:
    there = sizes_beside(folder, *list_directory(folder))
    renamed = {} if manifest.delta is None else own_sidecars(manifest, there)
    damaged = []
    for name, said in manifest.sidecars.items():
        path = folder / renamed.get(name, name)
        before = identity(path)
        try:
            right = Content.of_file(inside(folder, renamed.get(name, name))).digest == said.digest
            why = "it was changed"
        except (DamagedInput, SourceFault) as error:
            right, why = False, str(error)
        if not right:
            damaged.append(DamagedFile(name, path, why, before))
    return damaged

"""Versions of a model, which a training run publishes as the changes of each step.

    DIR/weight_v000001/model.safetensors.index.json    what version it is, and of which it is made
    DIR/weight_v000001/model-00000-of-00001.safetensors    a payload for each tensor that changed

A version without an encoding is a whole model. Version 0 is the model that training started from.
Source: THUDM/slime, ``update_weight_from_disk_delta.py``; the receivers of SGLang, miles and vime.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, get_args

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.discover import list_directory
from weightsmith.checkpoint.layout import INDEXES
from weightsmith.checkpoint.opening import open_checkpoint
from weightsmith.checkpoint.store import LocalStore
from weightsmith.codecs.checksums import ALGORITHMS, Algorithm
from weightsmith.codecs.disk_delta import Encoding
from weightsmith.engine.checked import Checked
from weightsmith.errors import NoBase, VersionsBroken
from weightsmith.formats.index import Index, parse_index
from weightsmith.formats.safetensors_header import MAX_HEADER_NBYTES, read_header
from weightsmith.formats.tensors import TensorInfo
from weightsmith.plan.model import InputTensor, TensorPlan
from weightsmith.plan.version import VERSION_NAME

INDEX: Final = INDEXES[0]
_SINGLE: Final = "model.safetensors"
_DIGITS: Final = 255
"""Most digits of a version's number in the name of its directory."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version, in a directory of its own."""

    number: int
    folder: Path
    base: int | None = None
    """The number of the version that it is made from; None for a whole model."""
    encoding: Encoding = "xor"
    checksum: Algorithm = "xxh3-128"
    is_empty: bool = False
    """Whether nothing changed in this version."""

    @property
    def name(self) -> str:
        """The name of its directory."""
        return self.folder.name


@dataclass(frozen=True, slots=True)
class DiskDelta:
    """The versions of a model, which are applied to the model that they started from."""

    checkpoint: Checkpoint
    """The payloads, or the weights, of the newest version."""
    versions: Mapping[int, Version]
    unfinished: tuple[str, ...] = ()
    """Directories of versions that are still being written."""
    alone: bool = False
    """Whether a single version was named, whose base is the version before it."""

    @property
    def label(self) -> str:
        """The source as the user wrote it."""
        return self.checkpoint.label

    @property
    def why(self) -> str:
        """What it was taken for this by, as a clause."""
        return "it holds versions of a model as what each changed (weight_vNNNNNN)"


def find_disk_delta(folder: Path, label: str) -> DiskDelta | None:
    """The versions in a directory, or the one that the directory is; None if it is neither.

    Raises: VersionsBroken; what reading an index raises.
    """
    files, directories = list_directory(folder)
    if INDEX in files:
        version = _read(folder, number=None)
        if version is None or version.base is None:
            return None
        return DiskDelta(_open(version, label), {version.number: version}, alone=True)
    named = {name: VERSION_NAME.fullmatch(name) for name in directories}
    versions: dict[int, Version] = {}
    unfinished: list[str] = []
    for name, match in sorted(named.items()):
        if match is None:
            continue
        number = int(match[1])
        found = _read(folder / name, number=number)
        if found is None:
            unfinished.append(name)
            continue
        if number in versions:
            raise VersionsBroken(where=label, reason=f"{name} is version {number} once more")
        versions[number] = found
    if not versions:
        return None
    newest = versions[max(versions)]
    return DiskDelta(_open(newest, label), versions, tuple(unfinished))


def is_version(folder: Path) -> bool:
    """Whether a directory's index says that it holds a version's changes and not a model."""
    index = _index(folder)
    return index is not None and "delta_encoding" in index.metadata


def fold(base: Checkpoint | None, delta: DiskDelta, at: int | None = None) -> Checkpoint:
    """The model of version `at`, or of the newest, made as it is read.

    It starts from the newest whole version up to that one, or else from `base`, and applies all
    changes since then in one pass. Each tensor that any version changed is compared with the
    checksum of the last version that changed it.
    Raises: VersionsBroken, if a version is missing, and, while reading, if a checksum differs;
    NoBase; what opening a version raises.
    """
    chain = _chain(delta, at)
    ground, steps = base, chain
    if chain[0].base is None:
        ground, steps = open_checkpoint(chain[0].folder), chain[1:]
    if ground is None:
        raise NoBase(delta=delta.label)
    names = {name: tensor.info for name, tensor in ground.tensors.items()}
    touched: dict[str, list[tuple[Version, TensorInfo, str]]] = {}
    inputs: dict[str, Checkpoint] = {"base": ground}
    for version in steps:
        if version.is_empty:
            continue
        payloads = inputs[version.name] = open_checkpoint(version.folder)
        sums = _checksums(payloads)
        for name, tensor in payloads.tensors.items():
            _require_payload(version, tensor.info, names, sums)
            touched.setdefault(name, []).append((version, tensor.info, sums[name].lower()))
    rules = [_rule(info, touched.get(name, [])) for name, info in names.items()]

    def failed(name: str) -> NoReturn:
        """Find the first version whose checksum of the tensor is not met, and raise its error."""
        history = touched[name]
        for count, (version, _, checksum) in enumerate(history, start=1):
            made = Checked(
                checksums={},
                failed=failed,
                label=delta.label,
                directory=version.folder,
                rules=[_rule(names[name], history[:count])],
                inputs=inputs,
                sidecars={},
            )
            if made.checksum(name, version.checksum) != checksum:
                where = version.name if count > 1 else f"{version.name}, or what it is put on,"
                raise VersionsBroken(
                    where=delta.label,
                    reason=f"{where} is damaged: {name} has another {version.checksum}",
                )
        raise VersionsBroken(where=delta.label, reason=f"{name} was changed while it was read")

    model = Checked(
        checksums={
            name: (history[-1][0].checksum, history[-1][2]) for name, history in touched.items()
        },
        failed=failed,
        label=f"{delta.label} at version {chain[-1].number}",
        directory=delta.checkpoint.directory,
        rules=rules,
        inputs=inputs,
        sidecars={name: ground.sidecar(name) for name in ground.sidecars},
        notes=tuple(f"left: {name}, which is still being written" for name in delta.unfinished),
    )
    model.origin = ground.origin
    return model


def _chain(delta: DiskDelta, at: int | None) -> list[Version]:
    """The versions to apply, from the newest whole one, or else the first, to version `at`.

    Raises: VersionsBroken.
    """
    versions = delta.versions
    number = max(versions) if at is None else at
    chain: list[Version] = []
    after = ""
    while True:
        version = versions.get(number)
        if version is None:
            name = f"weight_v{number:06d}"
            state = "still being written" if name in delta.unfinished else "missing"
            raise VersionsBroken(where=delta.label, reason=f"{name} is {state}{after}")
        chain.insert(0, version)
        is_first = version.base == 0 and 0 not in versions
        if version.base is None or is_first or delta.alone:
            return chain
        if version.base >= version.number:
            reason = f"{version.name} says that it is made of version {version.base}"
            raise VersionsBroken(where=delta.label, reason=reason)
        number, after = version.base, f", of which {version.name} is made"


def _rule(info: TensorInfo, history: Sequence[tuple[Version, TensorInfo, str]]) -> TensorPlan:
    """The rule that makes a tensor from the base's and the changes of versions."""
    source = InputTensor("base", info)
    if not history:
        return TensorPlan.make("copy@1", {}, [source])
    payloads = [InputTensor(version.name, payload) for version, payload, _ in history]
    encodings = ",".join(version.encoding for version, _, _ in history)
    return TensorPlan.make("disk-delta@1", {"encodings": encodings}, [source, *payloads])


def _checksums(payloads: Checkpoint) -> dict[str, str]:
    """The checksum of each tensor's new bytes, as the files hold it."""
    found: dict[str, str] = {}
    for file in payloads.files:
        found |= read_header(payloads.peek(file.name))[0].metadata
    return found


def _require_payload(
    version: Version, payload: TensorInfo, names: Mapping[str, TensorInfo], sums: Mapping[str, str]
) -> None:
    """Raises: VersionsBroken."""
    if payload.name not in names:
        reason = f"it changes {payload.name}, which the model before it does not have"
    elif payload.dtype != "U8" or len(payload.shape) != 1:
        reason = f"{payload.name} is {payload}, and no vector of bytes"
    elif payload.name not in sums:
        reason = f"it gives no checksum for {payload.name}"
    else:
        return
    raise VersionsBroken(where=version.folder, reason=reason)


def _open(version: Version, label: str) -> Checkpoint:
    if not version.is_empty:
        return open_checkpoint(version.folder, label)
    return Checkpoint(
        label=label,
        directory=version.folder,
        store=LocalStore(version.folder),
        files=(),
        tensors={},
        sidecars=(),
        notes=(),
    )


def _read(folder: Path, *, number: int | None) -> Version | None:
    """The version that a directory holds, by its index, which is written last; None without one.

    Raises: VersionsBroken.
    """
    index = _index(folder)
    if index is None:
        if number is None or not os.path.lexists(folder / _SINGLE):
            return None
        return Version(number, folder)
    said = index.metadata
    if "delta_encoding" not in said:
        return Version(number or 0, folder)
    encodings: tuple[Encoding, ...] = get_args(Encoding)
    encoding = next((each for each in encodings if each == said["delta_encoding"]), None)
    checksum = next((each for each in ALGORITHMS if each == said.get("checksum_format")), None)
    version, base = (_number(said.get(key)) for key in ("version", "base_version"))
    if encoding is None:
        reason = f"its delta_encoding is {said['delta_encoding']}, not xor or overwrite"
    elif checksum is None:
        given = said.get("checksum_format")
        reason = f"its checksum_format is {given}, not one of {', '.join(ALGORITHMS)}"
    elif said.get("compression_format") != "zstd":
        reason = f"its compression_format is {said.get('compression_format')}, not zstd"
    elif version is None or base is None:
        reason = "it does not say its version and base_version"
    elif number is not None and version != number:
        reason = f"it says that it is version {version}"
    else:
        is_empty = not index.weight_map
        return Version(version, folder, base, encoding, checksum, is_empty)
    raise VersionsBroken(where=folder, reason=reason)


def _index(folder: Path) -> Index | None:
    path = folder / INDEX
    if not os.path.lexists(path):
        return None
    return parse_index(fs.read_small(path, MAX_HEADER_NBYTES), path, may_be_empty=True)


def _number(said: object) -> int | None:
    """A number in text; None if it has more digits than any version, which Python may refuse."""
    if not isinstance(said, str) or not said.isdecimal() or len(said) > _DIGITS:
        return None
    return int(said)

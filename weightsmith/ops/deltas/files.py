"""Decode a release of encoded files: XORed with the base's, or encrypted with a key stream."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.checkpoint.content import inside
from weightsmith.checkpoint.discover import list_directory
from weightsmith.checkpoint.layout import ENCRYPTED, INDEXES, WEIGHTS
from weightsmith.checkpoint.sidecars import OTHERS, is_sidecar, matches
from weightsmith.checkpoint.whole_files import WholeFiles
from weightsmith.codecs.keystream_file import HEADER_NBYTES
from weightsmith.engine.derived import Derived, DerivedFile
from weightsmith.engine.options import Bindings
from weightsmith.errors import (
    BaseFilesWrong,
    EncryptedInvalid,
    KeyWrong,
    NoBase,
    NoKey,
    PayloadUnpaired,
    ShardMissing,
    TargetIsInput,
    WeightsmithError,
)
from weightsmith.formats.index import parse_index
from weightsmith.formats.strict_json import parse_json
from weightsmith.formats.torch_zip import read_torch_table
from weightsmith.ops.job import Job, input_plans, target_apart
from weightsmith.plan.model import FilePlan, InputTensor, Plan, TensorPlan
from weightsmith.repair.contents import ADDED, READ
from weightsmith.repair.detect import diagnose
from weightsmith.sources.file_release import FileRelease

_PLAIN: Final = (ADDED,)
"""Files that XOR releases hold in plain form, because no base has them."""
_SMALL_NBYTES: Final = 64_000_000
"""Files up to this size are decoded in planning, to see whether base or key is the right one."""


def plan_decode(
    encoded: FileRelease,
    *,
    base: str | os.PathLike[str] | None,
    key: str | os.PathLike[str] | None,
    target: str | os.PathLike[str],
) -> Job:
    """Decide how to decode a release: each of its files byte for byte, under its own name.

    Small files, and the tables of tensors in large ones, are decoded in memory first: with a wrong
    base or key they cannot be parsed, and nothing is written.
    Raises: NoBase, NoKey; PayloadUnpaired, BaseFilesWrong, KeyWrong; EncryptedInvalid.
    """
    if encoded.encoding == "xor-file":
        if base is None:
            raise NoBase(delta=encoded.label)
        inputs, files, notes = _xor_files(encoded, Path(base))
        decoded = _decoded(encoded, inputs, files)
        _require_sense(encoded, decoded, files)
    else:
        if key is None:
            raise NoKey(delta=encoded.label)
        inputs, files, notes = _keystream_files(encoded, Path(key))
        decoded = _decoded(encoded, inputs, files)
        _require_key(encoded, Path(key), decoded, files)
    _require_all_shards(encoded, decoded, files)
    path = target_apart(target, {role: each for role, each in inputs.items() if role != "key"})
    if key is not None and path.resolve() in Path(key).resolve().parents:
        raise TargetIsInput(target=path, source=key)
    plan = Plan(
        verb="apply-delta",
        inputs=input_plans(inputs),
        shards=tuple(files),
        sidecars=(),
        notes=tuple(notes),
        release=encoded.release.id if encoded.release else "",
    )
    return Job(
        plan,
        Bindings(inputs, {}, path),
        encoded.release,
        _faults(decoded),
        known=tuple(encoded.needed(inputs)),
    )


# --- XOR -----------------------------------------------------------------------------------------


def _xor_files(
    encoded: FileRelease, base: Path
) -> tuple[dict[str, WholeFiles], list[FilePlan], list[str]]:
    """Inputs, files and notes for a release whose files are XORed with the base's of the same name.

    Raises: PayloadUnpaired.
    """
    fs.require_directory(base)
    ours, _ = list_directory(encoded.directory)
    theirs = set(list_directory(base)[0])
    for name in filter(is_sidecar, ours):
        inside(encoded.directory, name)  # a link to elsewhere may be anybody's secret
    left = [name for name in ours if name.startswith(".") or matches(name, OTHERS)]
    names = [name for name in ours if name not in left]
    combined = [name for name in names if name not in _PLAIN]
    unpaired = [name for name in combined if name not in theirs]
    if unpaired:
        raise PayloadUnpaired(delta=encoded.label, count=len(unpaired), context=unpaired)
    inputs = {
        "base": WholeFiles(base, combined, str(base)),
        "delta": WholeFiles(encoded.directory, names, encoded.label, unpack=True),
    }
    published = encoded.published
    files = []
    for name in names:
        payload = InputTensor("delta", inputs["delta"].tensors[name].info)
        if name in combined:
            pair = (InputTensor("base", inputs["base"].tensors[name].info), payload)
            files.append(_file(name, "xor-file@1", pair, published))
        else:
            files.append(_file(name, "copy@1", (payload,), published))
    return inputs, files, _notes(encoded, left)


def _require_sense(encoded: FileRelease, decoded: Derived, files: Sequence[FilePlan]) -> None:
    """Decode the small JSON files and the tables of torch files, and see whether they parse.

    Raises: BaseFilesWrong, if any does not.
    """
    problems = []
    for each in files:
        file = DerivedFile(decoded, each.name)
        try:
            if each.name.endswith(".json") and file.size <= _SMALL_NBYTES:
                parse_json(file.read(0, file.size), each.name, bom_allowed=True)
            elif fnmatchcase(each.name, WEIGHTS[1]) and not decoded.sequential:
                read_torch_table(file)
        except WeightsmithError as error:
            problems.append(f"{each.name} decodes to nonsense: {error}")
    if problems:
        context = [*problems, *encoded.advice()]
        raise BaseFilesWrong(delta=encoded.label, count=len(problems), context=context)


# --- key stream ----------------------------------------------------------------------------------


def _keystream_files(
    encoded: FileRelease, key: Path
) -> tuple[dict[str, WholeFiles], list[FilePlan], list[str]]:
    """Inputs, files and notes for an encrypted release, whose file names hold their sha256.

    Raises: KeyWrong, if the key is empty; EncryptedInvalid.
    """
    inputs = {
        "key": WholeFiles(key.parent, [key.name], str(key)),
        "delta": WholeFiles(encoded.directory, encoded.files, encoded.label),
    }
    stream = InputTensor("key", inputs["key"].tensors[key.name].info)
    if not stream.info.nbytes:
        raise KeyWrong(key=key, delta=encoded.label, reason="it is empty")
    published = encoded.published
    files: dict[str, FilePlan] = {}
    for file_name in encoded.files:
        path = encoded.directory / file_name
        name, digest = _name_and_digest(file_name)
        data = InputTensor("delta", inputs["delta"].tensors[file_name].info)
        header = bytearray(min(HEADER_NBYTES, data.info.nbytes))
        inputs["delta"].read_into(file_name, 0, memoryview(header))
        if header.hex() != digest:
            raise EncryptedInvalid(file=path, reason="its name and its header differ")
        if name in files:
            raise EncryptedInvalid(file=path, reason=f"another file decodes to {name} too")
        hashes = {name: {**published.get(name, {}), "sha256": digest}}
        files[name] = _file(name, "keystream-file@1", (stream, data), hashes)
    left = sorted(set(list_directory(encoded.directory)[0]) - {*encoded.files})
    return inputs, list(files.values()), _notes(encoded, left)


def _name_and_digest(file_name: str) -> tuple[str, str]:
    """``NAME.SHA256.enc`` -> the decoded file's name and sha256."""
    match = ENCRYPTED.fullmatch(file_name)
    if match is None:
        raise ValueError(file_name)
    return match[1], match[2]


def _require_key(
    encoded: FileRelease, key: Path, decoded: Derived, files: Sequence[FilePlan]
) -> None:
    """Decode the smallest file, if it is small enough, and compare its hash with the one it names.

    Raises: KeyWrong, if they differ.
    """
    smallest = min(files, key=lambda each: each.nbytes)
    if smallest.nbytes > _SMALL_NBYTES:
        return
    file = DerivedFile(decoded, smallest.name)
    content = file.read(0, file.size)
    if hashlib.sha256(content).hexdigest() != smallest.published["sha256"]:
        reason = f"{smallest.name} does not decode to what its name says"
        raise KeyWrong(key=key, delta=encoded.label, reason=reason)


# --- both ----------------------------------------------------------------------------------------


def _require_all_shards(encoded: FileRelease, decoded: Derived, files: Sequence[FilePlan]) -> None:
    """Raises: ShardMissing, if a decoded index names files that the release does not hold."""
    names = {each.name for each in files}
    for index in names.intersection(INDEXES):
        file = DerivedFile(decoded, index)
        named = parse_index(file.read(0, file.size), file.path).weight_map.values()
        if missing := sorted({*named} - names):
            place = f"{encoded.label}: {index}"
            raise ShardMissing(index=place, count=len(missing), context=missing)


def _notes(encoded: FileRelease, left: Sequence[str]) -> list[str]:
    named = f"the directory is named like {encoded.release.name}" if encoded.release else ""
    return [*filter(None, [named, f"not used: {', '.join(left)}" if left else ""])]


def _file(
    name: str,
    rule: str,
    inputs: tuple[InputTensor, ...],
    published: Mapping[str, Mapping[str, str]],
) -> FilePlan:
    tensor = TensorPlan.make(rule, {}, inputs, name=name)
    return FilePlan(name, (tensor,), published.get(name, {}))


def _decoded(
    encoded: FileRelease, inputs: Mapping[str, WholeFiles], files: Sequence[FilePlan]
) -> Derived:
    """A checkpoint that decodes the release as it is read, each file as one tensor of bytes."""
    return Derived(
        label=encoded.label,
        directory=encoded.directory,
        rules=[tensor for each in files for tensor in each.tensors],
        inputs=inputs,
        sidecars={},
    )


def _faults(decoded: Derived) -> tuple[str, ...]:
    """Known faults in the decoded tokenizer and config files, a sentence each."""
    files = {
        name: DerivedFile(decoded, name).read(0, decoded.tensors[name].info.nbytes)
        for name in READ
        if name in decoded.tensors and decoded.tensors[name].info.nbytes <= _SMALL_NBYTES
    }
    try:
        found = diagnose(files, names=decoded.tensors)
        return tuple(f"{fault.file}: {fault.evidence}" for fault in found.faults)
    except WeightsmithError as error:
        return (str(error),)

"""Make an exact delta: encode file by file, prove that it decodes, record, publish."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint, open_delta
from weightsmith.checkpoint.discover import DELTA_INDEX, INDEXES
from weightsmith.codecs.registry import codec
from weightsmith.engine.bindings import Bindings, Options
from weightsmith.engine.encode_file import EncodedFile, encode_file
from weightsmith.engine.file_hashes import hash_files
from weightsmith.engine.finished import damage
from weightsmith.engine.manifest import NAME as MANIFEST
from weightsmith.engine.manifest import File, Manifest, manifest_of, read_manifest
from weightsmith.engine.progress import SILENCE, Progress
from weightsmith.engine.run import made_otherwise, require_unchanged
from weightsmith.engine.spans import Buffers, digest_tensors
from weightsmith.engine.staging import Staging, is_vacant
from weightsmith.errors import (
    DamagedInput,
    SourceFault,
    TargetExists,
    VerificationFailed,
    shown,
)
from weightsmith.formats.index import build_index
from weightsmith.formats.safetensors_header import MAX_HEADER_NBYTES, read_header
from weightsmith.formats.tensors import TensorInfo
from weightsmith.plan.base_record import BaseRecord, BaseTensor
from weightsmith.plan.delta_record import (
    DeltaRecord,
    TargetFile,
    TargetTensor,
    is_file_name,
)
from weightsmith.plan.model import Plan


@dataclass(frozen=True, slots=True)
class Encoded:
    """What making a delta did."""

    record: DeltaRecord
    manifest: Manifest
    nbytes: int
    """Of the delta's payload files."""
    already_done: bool
    """The delta was there, finished by the same plan, and is sound."""


def encode(
    plan: Plan, bindings: Bindings, options: Options, progress: Progress = SILENCE
) -> Encoded:
    """Make the planned delta and publish it under its final name, whole or not at all.

    `plan.delta` holds the base's id.

    Raises: InTheWay for a directory or staging that is not this plan's; DiskFull;
    VerificationFailed; InputChanged; whatever reading the inputs meets.
    """
    staging = Staging(bindings.target)
    staging.recover()
    in_order = any(each.sequential for each in bindings.inputs.values())
    buffers = [Buffers() for _ in range(1 if in_order else options.threads)]
    finished = _finished(plan, bindings, options, buffers, progress)
    if finished is not None:
        staging.discard_leftovers(plan)
        return finished
    with staging.held():
        staging.claim(plan, restart=options.restart)
        made, files = _encode_files(plan, bindings, staging, options, buffers, progress)
        record = _record(bindings, plan.delta["base_id"], made, files, buffers, progress)
        require_unchanged(bindings)
        encoded = _complete(plan, bindings, staging, made, record, buffers, progress)
        staging.publish(overwrite=options.overwrite)
    return encoded


def _finished(
    plan: Plan,
    bindings: Bindings,
    options: Options,
    buffers: Sequence[Buffers],
    progress: Progress,
) -> Encoded | None:
    """A sound delta of the same plan; None where there is work to do.

    Raises: TargetExists, if anything else is in the way and may not be replaced.
    """
    directory = bindings.target
    if is_vacant(directory):
        return None
    try:
        manifest = read_manifest(directory)
        if manifest is None or manifest.delta is None:
            reason = "weightsmith did not finish it"
        elif otherwise := made_otherwise(plan, bindings, manifest):
            reason = otherwise
        else:
            record = DeltaRecord.from_document(manifest.delta)
            delta = open_delta(directory)
            progress.begin("checking", delta.nbytes)
            problems = damage(delta, manifest, _digests(delta, delta.tensors, buffers, progress))
            if not problems:
                return Encoded(record, manifest, _nbytes(delta), already_done=True)
            reason = f"it is damaged: {'; '.join(shown(problems))}"
    except (DamagedInput, SourceFault) as error:
        reason = f"it is damaged: {error}"
    if not options.overwrite:
        raise TargetExists(target=directory, reason=reason)
    return None


def _encode_files(
    plan: Plan,
    bindings: Bindings,
    staging: Staging,
    options: Options,
    buffers: Sequence[Buffers],
    progress: Progress,
) -> tuple[dict[str, EncodedFile], list[TargetFile]]:
    """Write all files of the delta; returns by name what each holds, and the target's own files."""
    target = bindings.inputs["target"]
    names = restorable_files(target)
    progress.begin("encoding and checking", sum(shard.data_nbytes for shard in plan.shards))
    made: dict[str, EncodedFile] = {}
    files: list[TargetFile] = []
    seen: dict[str, TargetTensor] = {}
    stop = threading.Event()
    background = ThreadPoolExecutor(1)
    try:
        synced: list[Future[None]] = []
        for number, shard in enumerate(plan.shards):
            described = [
                background.submit(_describe, target, name, stop)
                for name in names[number : number + 1]
            ]
            file = fs.create(staging.output / shard.name)
            encoded = encode_file(
                shard,
                bindings.inputs,
                file,
                seen,
                buffers,
                progress.advance,
                drop_cache=options.low_cpu_mem,
            )
            if encoded.payloads:
                synced.append(background.submit(file.sync))
            else:
                file.path.unlink()
            made[shard.name] = encoded
            files += [each.result() for each in described]
        for each in synced:
            each.result()
    finally:
        stop.set()
        background.shutdown(cancel_futures=True)
    return made, files


def restorable_files(target: Checkpoint) -> list[str]:
    """The weight files that a delta restores byte for byte: all of them, or none.

    They must be safetensors files, between whose tensors nothing lies, and have no tensor that the
    target's index leaves out.
    """
    names = [file.name for file in target.files]
    if target.rules or not all(map(is_file_name, names)):
        return []
    for name in names:
        header, _ = read_header(fs.open_for_reading(target.directory / name))
        listed = (target.tensors.get(stored.info.name) for stored in header.tensors)
        if not all(tensor is not None and tensor.file == name for tensor in listed):
            return []
    return names


def _describe(target: Checkpoint, name: str, stop: threading.Event) -> TargetFile:
    """All that restoring a file needs beside its tensors; reads the whole file for its hash."""

    def go_on(_: int) -> None:
        if stop.is_set():
            raise InterruptedError

    path = target.directory / name
    file = fs.open_for_reading(path)
    sha256 = hash_files({path: {"sha256"}}, [Buffers()], go_on)[path]["sha256"]
    return TargetFile(name, file.size, sha256, read_header(file)[1])


def _record(
    bindings: Bindings,
    base_id: str,
    made: Mapping[str, EncodedFile],
    files: Sequence[TargetFile],
    buffers: Sequence[Buffers],
    progress: Progress,
) -> DeltaRecord:
    """The record, for which the rest of the base is digested too."""
    base, target = bindings.inputs["base"], bindings.inputs["target"]
    digests = {name: digest for file in made.values() for name, digest in file.base_digests.items()}
    rest = [name for name in base.tensors if name not in digests]
    if rest:
        progress.begin("digesting", sum(base.tensors[name].info.nbytes for name in rest))
        digests |= _digests(base, rest, buffers, progress)
    restored = {name: each for file in made.values() for name, each in file.tensors.items()}
    index = target.directory / INDEXES[0]
    return DeltaRecord(
        base=BaseRecord(
            base_id,
            tuple(BaseTensor(each.info, digests[name]) for name, each in base.tensors.items()),
        ),
        tensors=tuple(restored[name] for name in target.tensors),
        files=tuple(files),
        index=fs.read_small(index, MAX_HEADER_NBYTES) if files and index.is_file() else None,
    )


def _complete(
    plan: Plan,
    bindings: Bindings,
    staging: Staging,
    made: Mapping[str, EncodedFile],
    record: DeltaRecord,
    buffers: Sequence[Buffers],
    progress: Progress,
) -> Encoded:
    """Write sidecars and index, open what is there as a reader will, and write the manifest.

    Raises: VerificationFailed, if a reader would find anything but what was made.
    """
    weight_map = {info.name: name for name, file in made.items() for info in file.payloads}
    payloads = {info.name: info for file in made.values() for info in file.payloads}
    index = build_index(weight_map, sum(info.nbytes for info in payloads.values()))
    small = {each.name: bindings.sidecars[each.name] for each in plan.sidecars}
    for name, content in {**small, DELTA_INDEX: index}.items():
        fs.write_durably(staging.output / name, content)
    fs.sync_directory(staging.output)
    try:
        delta = open_delta(staging.output)
        if {name: each.info for name, each in delta.tensors.items()} != payloads:
            raise VerificationFailed(file=staging.output / DELTA_INDEX, reason="other payloads")
        _require_tables(record, delta)
    except DamagedInput as error:
        raise VerificationFailed(file=staging.output, reason=error) from error
    progress.begin("digesting", delta.nbytes)
    manifest = replace(
        manifest_of(plan, _digests(delta, delta.tensors, buffers, progress), {DELTA_INDEX: index}),
        files={file.name: File(file.size, file.header_digest) for file in delta.files},
        delta=DeltaRecord.from_document(record.to_document()).to_document(),
    )
    fs.write_durably(staging.output / MANIFEST, manifest.to_json())
    fs.sync_directory(staging.output)
    return Encoded(record, manifest, _nbytes(delta), already_done=False)


def _require_tables(record: DeltaRecord, delta: Checkpoint) -> None:
    """Raises: DamagedInput, if a payload's table does not say where its spans are."""
    infos = {name: each.info for name, each in delta.tensors.items()}
    for rule in record.rules(infos):
        own = [each.info for each in rule.inputs]

        def read(
            number: int, start: int, buffer: memoryview, own: Sequence[TensorInfo] = own
        ) -> None:
            delta.read_into(own[number].name, start, buffer)

        codec(rule.codec, rule.params).prepare(own, rule.output, read)


def _digests(
    checkpoint: Checkpoint, names: Iterable[str], buffers: Sequence[Buffers], progress: Progress
) -> dict[str, str]:
    infos = [checkpoint.tensors[name].info for name in names]
    return digest_tensors(infos, checkpoint.read_into, buffers, progress.advance)


def _nbytes(delta: Checkpoint) -> int:
    return sum(file.size for file in delta.files)

"""Apply an exact delta: the target comes back bit for bit, its safetensors files byte for byte."""

import os
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Final

from weightsmith.checkpoint.checkpoint import Checkpoint, open_delta
from weightsmith.checkpoint.digest import SPAN_NBYTES, bytes_digest
from weightsmith.checkpoint.discover import DELTA_INDEX, INDEXES
from weightsmith.engine.bindings import Bindings
from weightsmith.engine.expected import require_inputs
from weightsmith.engine.manifest import NAME as MANIFEST
from weightsmith.engine.manifest import Manifest, read_manifest
from weightsmith.engine.spans import Buffers
from weightsmith.errors import BaseIsDelta, DamagedInput, DeltaInvalid, WrongBase
from weightsmith.formats.safetensors_header import parse_header
from weightsmith.ops.job import Job, input_plans, target_apart
from weightsmith.ops.sources import label_of, open_source
from weightsmith.plan.add_record import AddRecord
from weightsmith.plan.base_record import BaseRecord
from weightsmith.plan.delta_record import DeltaRecord
from weightsmith.plan.model import (
    InputTensor,
    Plan,
    RestoredPlan,
    ShardPlan,
    SidecarPlan,
    TensorPlan,
)
from weightsmith.plan.shards import MAX_SHARD_NBYTES, lay_out

_GLANCE_NBYTES: Final = 32 * SPAN_NBYTES
"""How much of the base is digested while planning: its smallest tensors, up to so many bytes."""


def find_add_record(delta: str | os.PathLike[str]) -> AddRecord | None:
    """The record of an additive delta of ours, or None for any other directory.

    Raises: DeltaInvalid, DeltaUnknown, JsonInvalid, if it is one that cannot be read.
    """
    manifest = read_manifest(Path(delta))
    if manifest is None or manifest.delta is None:
        return None
    return AddRecord.from_document(manifest.delta)


def is_exact_delta(delta: str | os.PathLike[str]) -> bool:
    """Whether a path holds an exact delta, which is applied without torch."""
    return (Path(delta) / DELTA_INDEX).is_file()


def find_record(delta: str | os.PathLike[str]) -> tuple[Manifest, DeltaRecord] | None:
    """The manifest and record of an exact delta, or None for any other directory.

    Raises: DeltaInvalid, DeltaUnknown, JsonInvalid, if it is one that cannot be read.
    """
    if not is_exact_delta(delta):
        return None
    manifest = read_manifest(Path(delta))
    if manifest is None or manifest.delta is None:
        raise DeltaInvalid(name=MANIFEST, reason="there is none, or no record in it")
    return manifest, DeltaRecord.from_document(manifest.delta)


def plan_restore(
    base: str | os.PathLike[str],
    delta: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    max_shard_nbytes: int | None = None,
) -> Job:
    """Decide how to restore a target, reading headers, sidecars and small tensors of the base.

    With `max_shard_nbytes`, and for a target of torch files, the tensors are laid out anew; else
    the target's files are restored byte for byte.
    Raises: WrongBase; DeltaInvalid, DeltaUnknown; TargetIsInput, BaseIsDelta; what opening raises.
    """
    found = find_record(delta)
    if found is None:
        raise DeltaInvalid(name=DELTA_INDEX, reason="there is none")
    manifest, record = found
    ground = open_source(base)
    if ground.directory.samefile(delta):
        raise BaseIsDelta(source=label_of(base))
    inputs = {"base": ground, "delta": open_delta(Path(delta), label_of(delta))}
    path = target_apart(target, inputs)
    require_base(record.base, {tensor.base for tensor in record.tensors}, ground)
    rules = tuple(record.rules({n: each.info for n, each in inputs["delta"].tensors.items()}))
    contents = _sidecars(manifest, inputs["delta"])
    if record.files and max_shard_nbytes is None:
        shards = _files(record, rules)
        if record.index is not None:
            contents[INDEXES[0]] = record.index
    else:
        shards = lay_out(rules, max_shard_nbytes or MAX_SHARD_NBYTES)
    plan = Plan(
        verb="apply-delta",
        inputs=input_plans(inputs),
        shards=shards,
        sidecars=tuple(
            SidecarPlan(name, "delta", len(content), bytes_digest(content))
            for name, content in contents.items()
        ),
        dropped=manifest.dropped,
    )
    return Job(plan, Bindings(inputs, contents, path))


def require_base(record: BaseRecord, needed: Container[str | None], base: Checkpoint) -> None:
    """Compare names, dtypes and shapes of what is `needed` of the base, and digest a little.

    Raises: WrongBase.
    """
    known = {each.info.name: each for each in record.tensors if each.info.name in needed}
    problems = []
    for name, each in known.items():
        there = base.tensors.get(name)
        if there is None:
            problems.append(f"{name} is missing")
        elif there.info != each.info:
            problems.append(f"{name} is {there.info}, not {each.info}")
    hint = f"it was made from {record.id}" if record.id else None
    if problems:
        raise WrongBase(base=base.label, count=len(problems), context=problems, hint=hint)
    glance, left = [], _GLANCE_NBYTES
    for each in sorted(known.values(), key=lambda each: each.info.nbytes):
        left -= each.info.nbytes
        if left < 0:
            break
        glance.append(InputTensor("base", each.info, each.digest))
    require_inputs(glance, {"base": base}, [Buffers()])


def _sidecars(manifest: Manifest, delta: Checkpoint) -> dict[str, bytes]:
    """The target's sidecars, which travel with the delta.

    Raises: DeltaInvalid, if one is not as it was published.
    """
    contents = {}
    for name, sidecar in sorted(manifest.sidecars.items()):
        if name == DELTA_INDEX:
            continue
        if name not in delta.sidecars:
            raise DeltaInvalid(name=name, reason="it is missing")
        contents[name] = delta.read_sidecar(name)
        if bytes_digest(contents[name]) != sidecar.digest:
            raise DeltaInvalid(name=name, reason="it was changed")
    return contents


def _files(record: DeltaRecord, rules: Sequence[TensorPlan]) -> tuple[ShardPlan, ...]:
    """The target's own files.

    Raises: DeltaInvalid, if their headers do not name the target's tensors.
    """
    by_name = {rule.output.name: rule for rule in rules}
    shards = []
    for file in record.files:
        try:
            header = parse_header(file.header, file.size, Path(file.name))
        except DamagedInput as error:
            raise DeltaInvalid(name=file.name, reason=error) from error
        tensors = [by_name.pop(stored.info.name, None) for stored in header.tensors]
        if [tensor and tensor.output for tensor in tensors] != [s.info for s in header.tensors]:
            raise DeltaInvalid(name=file.name, reason="its header names other tensors")
        shards.append(
            RestoredPlan(
                file.name,
                tuple(tensor for tensor in tensors if tensor),
                file.header,
                {"sha256": file.sha256},
            )
        )
    if by_name:
        raise DeltaInvalid(name=MANIFEST, reason=f"no file holds {next(iter(by_name))}")
    return tuple(shards)

"""Apply an exact delta: the target comes back bit for bit, its safetensors files byte for byte."""

import os
from collections.abc import Sequence
from pathlib import Path

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.content import Content
from weightsmith.checkpoint.layout import INDEXES
from weightsmith.engine.manifest import NAME as MANIFEST
from weightsmith.engine.options import Bindings
from weightsmith.errors import BaseIsDelta, DamagedInput, DeltaInvalid
from weightsmith.formats.index import parse_index
from weightsmith.formats.safetensors_header import parse_header
from weightsmith.formats.tensors import DTYPES, SUMMABLE, TensorInfo
from weightsmith.ops.job import Job, input_plans, target_apart
from weightsmith.ops.sidecars import publish_sidecars, verbatim_sidecars
from weightsmith.plan.casts import Casting, plan_casting
from weightsmith.plan.exact_record import DeltaRecord
from weightsmith.plan.model import (
    InputTensor,
    Plan,
    RestoredPlan,
    ShardPlan,
    TensorPlan,
)
from weightsmith.plan.shards import MAX_SHARD_NBYTES, lay_out
from weightsmith.sources.exact import restore
from weightsmith.sources.kinds import ExactDelta
from weightsmith.sources.locate import label_of
from weightsmith.sources.recognise import open_model


def plan_restore(
    base: str | os.PathLike[str],
    delta: ExactDelta,
    target: str | os.PathLike[str],
    *,
    dtype: str = "delta",
    dtype_all: bool = False,
    max_shard_nbytes: int | None = None,
) -> Job:
    """Decide how to restore a target, reading headers, sidecars and small tensors of the base.

    The target's safetensors files are restored byte for byte. Its tensors are laid out in new files
    instead with `max_shard_nbytes`, with another dtype, or if the target had torch files.
    Dtypes: ``delta`` keeps the target's own; with ``base`` or a named dtype, floats of 16 bits and
    more are cast to that after they are restored, each value rounded once.
    Raises: WrongBase; DeltaInvalid, DeltaUnknown; TargetIsInput, BaseIsDelta; what opening raises.
    """
    manifest, record, payloads = delta.manifest, delta.record, delta.checkpoint
    ground = open_model(base)
    if ground.directory.samefile(payloads.directory):
        raise BaseIsDelta(source=label_of(base))
    path = target_apart(target, {"base": ground, "delta": payloads})
    restoring = restore(ground, delta)
    ground, rules, contents = restoring.base, restoring.rules, dict(restoring.sidecars)
    inputs = {"base": ground, "delta": payloads}
    config = payloads.config if dtype in DTYPES else {}
    infos = [rule.output for rule in rules]
    casting = plan_casting(config, infos, DTYPES.get(dtype, ""), everything=dtype_all)
    casts = {info.name: _wanted(info, dtype, casting, ground) for info in infos}
    if any(casts[rule.output.name] != rule.output.dtype for rule in rules):
        inputs = {"model": restoring.model()}
        rules = tuple(_cast(rule, casts[rule.output.name]) for rule in rules)
        origins = dict.fromkeys(contents, "delta")
        sidecars = publish_sidecars({"delta": payloads}, origins, [rule.output for rule in rules])
        shards = lay_out(rules, max_shard_nbytes or MAX_SHARD_NBYTES)
    else:
        if record.files and max_shard_nbytes is None:
            shards = _files(record, rules)
            if record.index is not None:
                _require_index(record.index, shards)
                contents[INDEXES[0]] = Content(record.index)
        else:
            shards = lay_out(rules, max_shard_nbytes or MAX_SHARD_NBYTES)
        sidecars = verbatim_sidecars(contents, "delta")
    plan = Plan(
        verb="apply-delta",
        inputs=input_plans(inputs),
        shards=shards,
        sidecars=sidecars.plans,
        dropped=manifest.dropped,
        notes=casting.notes,
    )
    return Job(plan, Bindings(inputs, sidecars.contents, path), faults=sidecars.faults)


def _wanted(info: TensorInfo, dtype: str, casting: Casting, base: Checkpoint) -> str:
    """The dtype in which a tensor of the target is written: with ``base`` that of the base's tensor
    of the same name, or of most of the base's if there is none.
    """
    if info.dtype not in SUMMABLE or dtype != "base":
        return casting.dtype_of(info)
    there = base.tensors.get(info.name)
    ours = base.common_dtype if there is None else there.info.dtype
    return ours if ours in SUMMABLE else info.dtype


def _cast(rule: TensorPlan, dtype: str) -> TensorPlan:
    """The rule that casts a restored tensor to `dtype`, or copies it if it has that already."""
    return TensorPlan.cast_or_copy(InputTensor("model", rule.output), dtype, digest=rule.digest)


def _files(record: DeltaRecord, rules: Sequence[TensorPlan]) -> tuple[ShardPlan, ...]:
    """The target's own files, each with the header that the delta recorded.

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
                {"sha256": file.sha256},
                given=file.header,
            )
        )
    if by_name:
        raise DeltaInvalid(name=MANIFEST, reason=f"no file holds {next(iter(by_name))}")
    return tuple(shards)


def _require_index(raw: bytes, shards: Sequence[ShardPlan]) -> None:
    """Raises: DeltaInvalid, if it is not the index of these files."""
    try:
        weight_map = parse_index(raw, Path(INDEXES[0])).weight_map
    except DamagedInput as error:
        raise DeltaInvalid(name=INDEXES[0], reason=error) from error
    if weight_map != {t.output.name: shard.name for shard in shards for t in shard.tensors}:
        raise DeltaInvalid(name=INDEXES[0], reason="it names other tensors or files")

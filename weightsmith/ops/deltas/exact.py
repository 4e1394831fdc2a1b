"""Apply an exact delta: the target comes back bit for bit, its safetensors files byte for byte."""

import math
import os
from collections.abc import Container, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Final

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.content import Content
from weightsmith.checkpoint.digest import SPAN_NBYTES, span_digest, tensor_digest
from weightsmith.checkpoint.layout import DELTA_INDEX, INDEXES
from weightsmith.checkpoint.renamed import named_like
from weightsmith.codecs.exact import kernel
from weightsmith.engine.derived import Proved
from weightsmith.engine.expected import require_inputs, wrong_base
from weightsmith.engine.manifest import NAME as MANIFEST
from weightsmith.engine.manifest import Manifest, own_sidecars
from weightsmith.engine.options import Bindings
from weightsmith.engine.spans import Buffers
from weightsmith.errors import BaseIsDelta, DamagedInput, DeltaInvalid
from weightsmith.formats.index import parse_index
from weightsmith.formats.safetensors_header import parse_header
from weightsmith.formats.tensors import DTYPES, SUMMABLE, TensorInfo
from weightsmith.ops.job import Job, input_plans, target_apart
from weightsmith.ops.sidecars import publish_sidecars, verbatim_sidecars
from weightsmith.plan.base_record import BaseRecord, BaseTensor
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
from weightsmith.sources.locate import label_of
from weightsmith.sources.recognise import ExactDelta, open_model
from weightsmith.units import counted

_SLOW_NBYTES_A_MINUTE: Final = 400_000_000
"""What one core decodes without the compiled part; further workers hardly help."""
_GLANCE_NBYTES: Final = 32 * SPAN_NBYTES
"""How much of the base is digested while planning: its smallest tensors, up to so many bytes."""
_GLANCE_AFAR: Final = 8
"""How many of them, where the base's files would have to be fetched."""


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

    With `max_shard_nbytes`, and for a target of torch files, the tensors are laid out anew; else
    the target's files are restored byte for byte.
    Dtypes: ``delta`` is the target's own; ``base``, or a named one, is what its floats of 16 bits
    and more become once they are restored, each value rounded once.
    Raises: WrongBase; DeltaInvalid, DeltaUnknown; TargetIsInput, BaseIsDelta; what opening raises.
    """
    manifest, record, payloads = delta.manifest, delta.record, delta.checkpoint
    if record.coded and kernel.find() is None:
        payloads.notes = (*payloads.notes, _slow(record))
    ground = open_model(base)
    if ground.directory.samefile(payloads.directory):
        raise BaseIsDelta(source=label_of(base))
    ground = named_like(ground, [each.info.name for each in record.base.tensors])
    inputs = {"base": ground, "delta": payloads}
    path = target_apart(target, inputs)
    require_base(record.base, {tensor.base for tensor in record.tensors}, ground)
    rules = tuple(record.rules({n: each.info for n, each in payloads.tensors.items()}))
    payloads.take_sidecars(own_sidecars(manifest, (*payloads.sidecars, *payloads.large)))
    contents = _sidecars(manifest, payloads)
    config = payloads.config if dtype in DTYPES else {}
    infos = [rule.output for rule in rules]
    casting = plan_casting(config, infos, DTYPES.get(dtype, ""), everything=dtype_all)
    casts = {info.name: _wanted(info, dtype, casting, ground) for info in infos}
    if any(casts[rule.output.name] != rule.output.dtype for rule in rules):
        inputs = {"model": _restored(ground, payloads, rules)}
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


def _slow(record: DeltaRecord) -> str:
    """What to expect where spans that are coded by class are read by NumPy."""
    coded = (each for each in record.tensors if each.payload is not None)
    minutes = math.ceil(sum(each.info.nbytes for each in coded) / _SLOW_NBYTES_A_MINUTE)
    return f"no compiled part is installed: decoding takes about {counted(minutes, 'minute')}"


def _wanted(info: TensorInfo, dtype: str, casting: Casting, base: Checkpoint) -> str:
    """The dtype that a tensor of the target is to have."""
    if info.dtype not in SUMMABLE or dtype != "base":
        return casting.dtype_of(info)
    there = base.tensors.get(info.name)
    ours = base.common_dtype if there is None else there.info.dtype
    return ours if ours in SUMMABLE else info.dtype


def _restored(base: Checkpoint, delta: Checkpoint, rules: Sequence[TensorPlan]) -> Checkpoint:
    """The target, restored as it is read, and held against its digests."""
    restored = Proved(
        label=f"{delta.label} on {base.label}",
        directory=delta.directory,
        rules=rules,
        inputs={"base": base, "delta": delta},
        sidecars={},
    )
    restored.origin = " on ".join(each.origin for each in (delta, base) if each.origin)
    return restored


def _cast(rule: TensorPlan, dtype: str) -> TensorPlan:
    """What becomes of a tensor once it is restored."""
    return TensorPlan.cast_or_copy(InputTensor("model", rule.output), dtype, digest=rule.digest)


def require_base(record: BaseRecord, needed: Container[str | None], base: Checkpoint) -> None:
    """Compare names, dtypes and shapes of what is `needed` of the base, and digest a little.

    From here on the base knows which one is wanted.
    Raises: WrongBase.
    """
    base.wanted = record.id
    known = {each.info.name: each for each in record.tensors if each.info.name in needed}
    problems = []
    for name, each in known.items():
        there = base.tensors.get(name)
        if there is None:
            problems.append(f"{name} is missing")
        elif there.info != each.info:
            problems.append(f"{name} is {there.info}, not {each.info}")
    smallest = sorted(known.values(), key=lambda each: each.info.nbytes)
    far = any(base.disk_nbytes(file.name) for file in base.files)
    if far and not problems:
        problems = [each.info.name for each in _glance_afar(smallest) if _differs(each, base)]
    if problems:
        raise wrong_base(base, problems)
    if not far:
        glance = [InputTensor("base", each.info, each.digest) for each in _glance(smallest)]
        require_inputs(glance, {"base": base}, [Buffers()])


def _glance(smallest: Sequence[BaseTensor]) -> list[BaseTensor]:
    """The first that are not too large together."""
    ends = accumulate(each.info.nbytes for each in smallest)
    return [each for each, end in zip(smallest, ends, strict=True) if end <= _GLANCE_NBYTES]


def _glance_afar(smallest: Sequence[BaseTensor]) -> list[BaseTensor]:
    """A few that fit into a span, each of which is a request to the hub."""
    return [each for each in smallest if 0 < each.info.nbytes <= SPAN_NBYTES][:_GLANCE_AFAR]


def _differs(tensor: BaseTensor, base: Checkpoint) -> bool:
    """Whether a tensor of one span is another in the base."""
    digest = span_digest(base.read_small(tensor.info.name))
    return tensor_digest(tensor.info, [digest]) != tensor.digest


def _sidecars(manifest: Manifest, delta: Checkpoint) -> dict[str, Content]:
    """The target's sidecars, which travel with the delta.

    Raises: DeltaInvalid, if one is not as it was published.
    """
    contents: dict[str, Content] = {}
    there = {*delta.sidecars, *delta.large}
    for name, sidecar in sorted(manifest.sidecars.items()):
        if name == DELTA_INDEX:
            continue
        if name not in there:
            raise DeltaInvalid(name=name, reason="it is missing")
        contents[name] = delta.sidecar(name)
        if contents[name].digest != sidecar.digest:
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

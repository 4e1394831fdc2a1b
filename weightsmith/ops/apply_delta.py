"""Apply a published delta: target = base + delta."""

import os
import re
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Final

from weightsmith.catalogue.match import releases_named
from weightsmith.catalogue.schema import Release
from weightsmith.engine import run as engine
from weightsmith.engine.options import Bindings, Options
from weightsmith.engine.staging import Staging
from weightsmith.errors import (
    NoBase,
    NoTargetName,
    OptionMeaningless,
)
from weightsmith.ops.deltas.exact import plan_restore
from weightsmith.ops.deltas.files import plan_decode
from weightsmith.ops.deltas.versions import plan_versions
from weightsmith.ops.job import Job, input_plans, recorded, target_apart
from weightsmith.ops.sidecars import choose_sidecars
from weightsmith.plan.model import Plan
from weightsmith.plan.shards import MAX_SHARD_NBYTES, lay_out
from weightsmith.progress import SILENCE, Progress
from weightsmith.sources.chain import naming
from weightsmith.sources.disk_delta import DiskDelta
from weightsmith.sources.file_release import FileRelease
from weightsmith.sources.kinds import AdditiveDelta, ExactDelta, Source
from weightsmith.sources.links import PLUS, spelled
from weightsmith.sources.locate import LocatedChain, label_of, locate
from weightsmith.sources.policy import NewRowsChoice
from weightsmith.sources.recognise import recognise
from weightsmith.sources.sums import DTypeChoice, plan_sum

_DELTA_WORD: Final = re.compile(r"[-_.](?:w?diff|delta|xor|enc)(?=[-_.]|$)", re.IGNORECASE)


@recorded("apply-delta")
def plan_apply_delta(
    base: str | os.PathLike[str] | None,
    delta: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    key: str | os.PathLike[str] | None = None,
    at: int | None = None,
    target: str | os.PathLike[str] | None = None,
    dtype: DTypeChoice = "delta",
    dtype_all: bool = False,
    new_rows: NewRowsChoice = "auto",
    whole: Sequence[str] = (),
    force_kind: bool = False,
    repair: bool = True,
    max_shard_nbytes: int | None = None,
    all_sidecars: bool = False,
    stream: bool = False,
    offline: bool = False,
    progress: Progress = SILENCE,
) -> Job:
    """Decide everything about target = base + delta, reading headers, sidecars and a few norm
    weights.

    `new_rows` says how the base's missing vocabulary rows count, `whole` which tensors (name
    patterns) the delta stores whole; the catalogue knows both for releases that it recognises.
    Dtypes: ``delta`` and ``base`` cast both sides to that side's dtype and add there, as the
    published tools do; a named dtype sums in the widest of the three and rounds once. What an
    exact delta restores is ``delta``, bit for bit, and else rounded once. A named dtype is not
    given to a quantiser's statistics, nor, without `dtype_all`, to what the architecture keeps in
    float32 on purpose.
    `max_shard_nbytes`: the largest output file, by default 5 GB; an exact delta without it gives
    back the target's own files.
    What is on the hub is fetched first, or, to `stream`, each weight file when the run reads it;
    `offline` takes what the hub's cache holds. `progress` is told how far fetching is.
    Of a directory of versions (``weight_vNNNNNN``), the version is the newest, or `at`.
    Several deltas are applied one after the other, in one pass. Without a `base` the last one's
    record, or else the catalogue, must say what it is.
    A release of whole files is decoded: XOR with those of `base`, or encrypted, with `key` alone.
    Raises: the Mismatch errors, each with every reason; NoTargetName, TargetIsInput, BaseIsDelta;
    what opening the sources raises.
    """
    *before, delta = [delta] if isinstance(delta, str | os.PathLike) else delta
    path = target if target is not None else target_name(label_of(delta))
    spool = Staging(Path(path).absolute()).inputs if stream else None
    reach = partial(locate, offline=offline, spool=spool, progress=progress)
    base = reach(base) if base is not None else None
    delta = reach(delta)
    # Of several deltas an error must say which one it is about; a single one is known.
    which = partial(naming, label_of(delta)) if before else nullcontext
    with which():
        source = recognise(delta)
    if key is not None:
        _require_key_alone(source, base, before)
    elif base is None:
        known = known_base(recognise(reach(before[0])) if before else source)
        if known:
            base = reach(known)
        elif before:
            raise NoBase(delta=label_of(before[0]))
    if before and base is not None:
        links = (base, *map(reach, before))
        base = LocatedChain(links, PLUS.join(map(label_of, links)))
    if isinstance(source, DiskDelta):
        reason = "versions are put on their base byte by byte"
        _require_plain(reason, dtype=dtype, new_rows=new_rows, whole=whole)
        return plan_versions(base, source, path, at=at, max_shard_nbytes=max_shard_nbytes)
    if at is not None:
        raise OptionMeaningless(options="`at`", reason=f"{label_of(delta)} has no versions")
    if isinstance(source, FileRelease):
        reason = "the release is decoded file by file, byte by byte"
        _require_plain(reason, dtype=dtype, new_rows=new_rows, whole=whole)
        return plan_decode(source, base=base, key=key, target=path)
    if base is None:
        raise NoBase(delta=label_of(delta))
    if isinstance(source, ExactDelta):
        reason = "an exact delta restores its target as it is"
        _require_plain(reason, new_rows=new_rows, whole=whole)
        with which():
            return plan_restore(
                base,
                source,
                path,
                dtype=dtype,
                dtype_all=dtype_all,
                max_shard_nbytes=max_shard_nbytes,
            )
    summing = plan_sum(
        recognise(base),
        source,
        dtype=dtype,
        dtype_all=dtype_all,
        new_rows=new_rows,
        whole=whole,
        force_kind=force_kind,
    )
    inputs, decision, casting = summing.inputs, summing.decision, summing.casting
    path = target_apart(path, inputs)
    tensors = summing.rules
    outputs = [tensor.output for tensor in tensors]
    sidecars = choose_sidecars(
        {"delta": inputs["delta"], "base": inputs["base"]},
        outputs,
        repair=repair,
        all_sidecars=all_sidecars,
    )
    plan = Plan(
        verb="apply-delta",
        inputs=input_plans(inputs),
        shards=lay_out(tensors, max_shard_nbytes or MAX_SHARD_NBYTES),
        sidecars=sidecars.plans,
        dropped=decision.pairing.dropped,
        notes=(*decision.notes, *casting.notes, *sidecars.notes),
        repairs=sidecars.repairs,
        release=decision.recognition.release.id if decision.recognition.release else "",
    )
    bindings = Bindings(inputs, sidecars.contents, path, finite=("delta",))
    return Job(plan, bindings, decision.recognition.release, sidecars.faults)


def apply_delta(
    base: str | os.PathLike[str] | None,
    delta: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    key: str | os.PathLike[str] | None = None,
    at: int | None = None,
    target: str | os.PathLike[str] | None = None,
    dtype: DTypeChoice = "delta",
    dtype_all: bool = False,
    new_rows: NewRowsChoice = "auto",
    whole: Sequence[str] = (),
    force_kind: bool = False,
    repair: bool = True,
    max_shard_nbytes: int | None = None,
    all_sidecars: bool = False,
    stream: bool = False,
    offline: bool = False,
    options: Options | None = None,
    progress: Progress = SILENCE,
) -> engine.Outcome:
    """Write target = base + delta to a new directory, whole or not at all.

    The arguments before `options` are those of `plan_apply_delta`.
    Memory: a few spans of 2 MiB a worker; it does not depend on the model.
    Raises: as `plan_apply_delta` and `Job.run`.
    """
    job = plan_apply_delta(
        base,
        delta,
        key=key,
        at=at,
        target=target,
        dtype=dtype,
        dtype_all=dtype_all,
        new_rows=new_rows,
        whole=whole,
        force_kind=force_kind,
        repair=repair,
        max_shard_nbytes=max_shard_nbytes,
        all_sidecars=all_sidecars,
        stream=stream,
        offline=offline,
        progress=progress,
    )
    return job.run(options, progress)


def known_base(delta: Source) -> str:
    """The base that a delta was made from, by its record, or by the catalogue for its name.

    Empty if no base is needed: an encrypted release needs a key instead, and the first version of
    a training run may be a whole model.

    Raises: NoBase, if neither says.
    """
    named = ""
    match delta:
        case ExactDelta():
            named = delta.record.base.id
        case AdditiveDelta():
            named = delta.record.base.id if delta.record is not None else ""
            if not named:
                named = next((release.base for release, _ in _released(delta)), "")
        case DiskDelta():
            return ""
        case FileRelease() if delta.encoding == "keystream-file":
            return ""
        case FileRelease() if delta.release is not None:
            named = delta.release.base
    if not named:
        raise NoBase(delta=delta.label)
    return spelled(named)


def _released(delta: AdditiveDelta) -> list[tuple[Release, str]]:
    """The catalogue's releases of this delta's name: its hub id's, or its directory's."""
    return releases_named(delta.checkpoint.known_as)


def target_name(delta: str) -> Path:
    """``lmsys/vicuna-7b-delta-v1.1`` -> ``vicuna-7b-v1.1``.

    Raises: NoTargetName, if the name has no such word, or nothing else.
    """
    name = Path(delta.rstrip("/").split("@")[0]).name
    stripped, count = _DELTA_WORD.subn("", name, count=1)
    if not count or not stripped:
        raise NoTargetName(delta=delta)
    return Path(stripped)


def _require_plain(reason: str, **options: object) -> None:
    """Refuse options that only additive deltas use.

    Raises: OptionMeaningless.
    """
    usual = {"dtype": "delta", "new_rows": "auto", "whole": ()}
    given = [f"`{n}`" for n, said in options.items() if said != usual[n]]
    if given:
        raise OptionMeaningless(options=", ".join(given), reason=reason)


def _require_key_alone(
    delta: Source, base: str | os.PathLike[str] | None, before: Sequence[str | os.PathLike[str]]
) -> None:
    """Refuse a key for what is not encrypted; for what is, a base or other deltas beside the key.

    Raises: OptionMeaningless.
    """
    if not isinstance(delta, FileRelease) or delta.encoding != "keystream-file":
        raise OptionMeaningless(options="`key`", reason=f"{delta.label} is not encrypted")
    others = [*(["`base`"] if base is not None else []), *map(label_of, before)]
    if others:
        reason = f"{delta.label} is decoded with its key alone"
        raise OptionMeaningless(options=", ".join(others), reason=reason)

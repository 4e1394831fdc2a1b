"""Make a delta: how a target differs from its base."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.checkpoint.renamed import named_like
from weightsmith.codecs.checksums import Algorithm
from weightsmith.codecs.disk_delta import Encoding
from weightsmith.codecs.exact import kernel
from weightsmith.engine.exact_delta import encode
from weightsmith.engine.manifest import Manifest
from weightsmith.engine.options import Bindings, Options
from weightsmith.engine.output import Outcome
from weightsmith.engine.target_files import originals_of
from weightsmith.engine.version import make_version
from weightsmith.errors import BaseIsTarget, DtypeNotStorable, OptionMeaningless
from weightsmith.formats.tensors import TORCH_ONLY_BITS
from weightsmith.hub.resolve import parse_hub_source
from weightsmith.ops.adapters.merging import factors_of
from weightsmith.ops.deltas.additive import Loss, measured, subtractions
from weightsmith.ops.job import Job, carry_out, input_plans, needs, require_room, target_apart
from weightsmith.ops.sidecars import copied_sidecars
from weightsmith.plan import add_record, exact_record
from weightsmith.plan.align import NewRows
from weightsmith.plan.exact_delta import plan_files
from weightsmith.plan.model import DeltaPlan, InputTensor, Plan
from weightsmith.plan.shards import MAX_SHARD_NBYTES, lay_out
from weightsmith.plan.version import FORM, plan_version, version_of
from weightsmith.progress import SILENCE, Progress
from weightsmith.sources.locate import label_of
from weightsmith.sources.recognise import open_lora, open_model
from weightsmith.units import counted

CodecChoice = Literal["exact", "add", "xor", "overwrite"]


@dataclass(frozen=True, slots=True, repr=False)
class MadeDelta(Outcome):
    """What making a delta did; `target` is the delta's directory."""

    nbytes: int
    """Size of the delta's weight files."""
    target_nbytes: int
    """Size of the target's tensors."""
    loss: Loss | None
    """What the delta will not restore; None for an exact delta, which restores every bit."""
    low_rank: str
    """A sentence on how many of an exact delta's tensors are their base plus a product of thin
    factors, and of which rank; empty if none is.
    """

    @property
    def share(self) -> float:
        """The delta's size as a share of the target's."""
        return self.nbytes / self.target_nbytes if self.target_nbytes else 0.0


@dataclass(frozen=True, slots=True)
class DeltaJob(Job):
    """A delta that is planned and not made yet."""

    def run(self, options: Options | None = None, progress: Progress = SILENCE) -> MadeDelta:
        """Make the delta, whole or not at all.

        Raises: as `engine.exact_delta.encode` and `Job.run`.
        """
        options = options or Options()
        plan, bindings = self.plan, self.bindings
        if plan.delta.form == exact_record.FORM:
            require_room(needs(self, options))
            outcome, loss = encode(plan, bindings, options, progress), None
        elif plan.delta.form == FORM:
            require_room(needs(self, options))
            outcome, loss = make_version(plan, bindings, options, progress), None
        else:
            record, loss = measured(plan, bindings, options, progress)
            known = replace(plan, delta=replace(plan.delta, record=record.to_document()))
            outcome = carry_out(replace(self, plan=known), options, progress)
        return MadeDelta(
            target=bindings.target,
            manifest=outcome.manifest,
            nbytes=sum(file.size for file in outcome.manifest.files.values()),
            target_nbytes=bindings.inputs["target"].nbytes,
            loss=loss,
            low_rank=_low_rank(outcome.manifest),
            kept=outcome.kept,
            already_done=outcome.already_done,
            doubts=outcome.doubts,
        )


def plan_make_delta(
    base: str | os.PathLike[str],
    target: str | os.PathLike[str],
    delta: str | os.PathLike[str],
    *,
    codec: CodecChoice = "exact",
    checksum: Algorithm = "xxh3-128",
    new_rows: NewRows = "zero",
    base_id: str = "",
    adapter: str | os.PathLike[str] | None = None,
    all_sidecars: bool = False,
    portable: bool = False,
    offline: bool = False,
    progress: Progress = SILENCE,
) -> DeltaJob:
    """Decide everything about a delta, reading headers and sidecars only.

    `codec`: an ``exact`` delta restores the target bit for bit. ``add`` is FastChat's format, whose
    sums are rounded; for it `new_rows` says what is subtracted from vocabulary rows that the base
    lacks, zero or the mean of its rows. ``xor`` and ``overwrite`` are the encodings of the versions
    that training runs publish, with a `checksum`; the names of the directories,
    ``weight_vNNNNNN``, give the numbers of the version and of the one it is made from.
    `base_id`: where users of the delta find the base on the hub, ``ORG/NAME@COMMIT``.
    `portable`: an exact delta that can be applied quickly without weightsmith's compiled part. It
    is larger and takes longer to make; without a compiled part here every exact delta is so.
    `adapter`: the LoRA that was merged into the base, if it is at hand. An exact delta then is made
    faster, and is smaller.
    Raises: OptionMeaningless; BaseIsTarget, TargetIsInput; DtypeNotStorable; for ``add``
    TensorsDoNotFit, DtypeNotSummable; for ``xor`` and ``overwrite`` VersionsBroken,
    TensorsDoNotFit; for an `adapter` as `ops.adapters.merging.merged`; as `parse_hub_source` for
    `base_id`; what opening the sources raises.
    """
    require_use(
        codec, base_id=base_id, adapter=adapter, all_sidecars=all_sidecars, portable=portable
    )
    if base_id:
        named = parse_hub_source(base_id)  # never a path, which would mean nothing to others
        base_id = "@".join(filter(None, (named.homes[0], named.revision)))
    sources = {"base": base, "target": target}
    inputs = {
        role: open_model(source, offline=offline, progress=progress)
        for role, source in sources.items()
    }
    wanted = inputs["target"]
    ground = inputs["base"] = named_like(inputs["base"], wanted.tensors)
    if ground.directory.samefile(wanted.directory):
        raise BaseIsTarget(source=label_of(base))
    path = target_apart(delta, inputs)
    for tensor in wanted.tensors.values():
        if tensor.info.dtype in TORCH_ONLY_BITS:
            raise DtypeNotStorable(name=tensor.info.name, dtype=tensor.info.dtype)
    if codec in ("xor", "overwrite"):
        return _version_job(inputs, path, codec, checksum)
    about = DeltaPlan(exact_record.FORM, base_id or ground.origin)
    notes = [f"the base is {about.base_id}"] if about.base_id else []
    dropped: tuple[str, ...]
    if codec == "exact":
        factors: dict[str, tuple[InputTensor, ...]] = {}
        if adapter is not None:
            inputs["adapter"] = open_lora(adapter, offline=offline, progress=progress)
            path = target_apart(delta, inputs)
            factors, products = factors_of(ground, inputs["adapter"])
            about = replace(about, products=products)
            notes.append(f"the adapter has factors for {len(products)} of the base's tensors")
        shards = plan_files(ground, wanted, factors)
        dropped = ()
        gone = [name for name in ground.tensors if name not in wanted.tensors]
        if gone:
            notes.append(
                f"the target lacks {counted(len(gone), 'tensor')} of the base: {', '.join(gone)}"
            )
        originals = originals_of(wanted)
        about = replace(about, coded=not portable and kernel.find() is not None)
        if not portable and not about.coded:
            notes.append("without the compiled part the delta is larger, and takes longer")
        if originals.index is not None:
            about = replace(about, index=bytes_digest(originals.index))
        if not originals.headers:
            notes.append("the delta restores the target's tensors, not its files byte for byte")
    else:
        about = replace(about, form=add_record.FORM, new_rows=new_rows)
        decided = subtractions(ground, wanted, new_rows)
        shards, dropped = lay_out(decided.rules, MAX_SHARD_NBYTES), decided.buffers
        notes += [
            f"{name} is not written: it is the input embedding too" for name in decided.copies
        ]
    sidecars = copied_sidecars(wanted, "target", all_sidecars=all_sidecars)
    notes += sidecars.notes
    plan = Plan(
        verb="make-delta",
        inputs=input_plans(inputs),
        shards=shards,
        sidecars=sidecars.plans,
        dropped=dropped,
        notes=tuple(notes),
        delta=about,
    )
    return DeltaJob(plan, Bindings(inputs, sidecars.contents, path))


def make_delta(
    base: str | os.PathLike[str],
    target: str | os.PathLike[str],
    delta: str | os.PathLike[str],
    *,
    codec: CodecChoice = "exact",
    checksum: Algorithm = "xxh3-128",
    new_rows: NewRows = "zero",
    base_id: str = "",
    adapter: str | os.PathLike[str] | None = None,
    all_sidecars: bool = False,
    portable: bool = False,
    offline: bool = False,
    options: Options | None = None,
    progress: Progress = SILENCE,
) -> MadeDelta:
    """Write a delta to a new directory, whole or not at all.

    The arguments before `options` are those of `plan_make_delta`. Every span of an exact delta is
    read back and decoded before the delta is published: with the base it gives the target back bit
    for bit, and its safetensors files byte for byte. For an additive delta the result says what
    adding it will not restore.
    Memory: some ten spans of 2 MiB a worker; it does not depend on the model.
    Raises: as `plan_make_delta` and `DeltaJob.run`.
    """
    job = plan_make_delta(
        base,
        target,
        delta,
        codec=codec,
        checksum=checksum,
        new_rows=new_rows,
        base_id=base_id,
        adapter=adapter,
        all_sidecars=all_sidecars,
        portable=portable,
        offline=offline,
        progress=progress,
    )
    return job.run(options, progress)


def require_use(codec: CodecChoice, **given: object) -> None:
    """Refuse arguments of `plan_make_delta`, by name and value, that a codec has no use for.

    Raises: OptionMeaningless.
    """
    match codec:
        case "exact":
            return
        case "add":
            useless, reason = {"adapter"}, "an additive delta stores no factors"
        case "xor" | "overwrite":
            useless, reason = {*given}, "a version of a training run cannot hold what they ask for"
    if named := [f"`{name}`" for name, value in given.items() if value and name in useless]:
        raise OptionMeaningless(options=", ".join(named), reason=reason)


def _version_job(
    inputs: Mapping[str, Checkpoint], path: Path, encoding: Encoding, checksum: Algorithm
) -> DeltaJob:
    """Plan a version of a training run, as the difference to the version before.

    Raises: VersionsBroken, TensorsDoNotFit.
    """
    plan = Plan(
        verb="make-delta",
        inputs=input_plans(inputs),
        shards=plan_version(inputs["base"], inputs["target"], encoding),
        sidecars=(),
        notes=("such a delta holds weights alone, no config and no tokenizer",),
        delta=DeltaPlan(FORM, version=version_of(inputs["base"], path, encoding, checksum)),
    )
    return DeltaJob(plan, Bindings(inputs, {}, path))


def _low_rank(manifest: Manifest) -> str:
    """The sentence for `MadeDelta.low_rank`, from the record of an exact delta."""
    if manifest.delta is None or manifest.delta["form"] not in exact_record.FORMS:
        return ""
    return exact_record.DeltaRecord.from_document(manifest.delta).low_rank

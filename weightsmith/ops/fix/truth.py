"""Where the right bytes of a damaged output can be had: a copy of it, or what it was made from."""

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.content import Content
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.checkpoint.renamed import named_like
from weightsmith.checkpoint.whole_files import WholeFiles
from weightsmith.engine.derived import Derived
from weightsmith.engine.manifest import Manifest
from weightsmith.engine.options import Options
from weightsmith.errors import NoWeights
from weightsmith.formats.safetensors_header import layout, read_header
from weightsmith.formats.tensors import TensorInfo
from weightsmith.ops.apply_delta import plan_apply_delta
from weightsmith.ops.convert import plan_convert
from weightsmith.ops.fix.hints import known_origins
from weightsmith.ops.fix.mend import THEIRS, Encoding
from weightsmith.ops.job import Job
from weightsmith.ops.make_delta import plan_make_delta
from weightsmith.ops.merge_lora import plan_merge_lora
from weightsmith.plan import add_record
from weightsmith.plan.casts import plan_casting
from weightsmith.plan.exact_record import FORMS, DeltaRecord
from weightsmith.plan.model import METADATA, FilePlan, InputTensor, ShardPlan, TensorPlan
from weightsmith.progress import Progress
from weightsmith.sources.kinds import AdditiveDelta, ExactDelta, Model, Source, require_model
from weightsmith.sources.links import PLUS
from weightsmith.sources.locate import LocatedChain, label_of, locate
from weightsmith.sources.recognise import recognise
from weightsmith.sources.sums import DTypeChoice

NOWHERE: Final = Path(os.sep, "weightsmith-nowhere")
"""A plan names its target; nothing is ever made there."""
_DTYPES: Final = ("", "F16", "BF16", "F32")
"""Dtypes to which a file whose header is lost may have been cast; empty: it was not cast."""
Where = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Truth:
    """A source of bytes that may be right; the manifest's digests decide whether they are."""

    label: str
    checkpoint: Checkpoint
    sidecars: Mapping[str, Content]
    """Files beside the weights, as they would be published."""
    shards: Mapping[str, ShardPlan] = field(default_factory=dict)
    """By name, the files that the same command makes today."""
    inputs: Mapping[str, Checkpoint] = field(default_factory=dict)
    """What it makes them from."""
    encoding: Encoding | None = None
    """Of an exact delta that is made again."""
    job: Job | None = None
    """Of what is made again, the planned command."""
    manifest: Manifest | None = None
    """Of a copy, its own, if that is sound."""
    lacks_base: bool = False
    """Whether it is a delta's target alone, of which only small files can be taken."""

    def whole(self, file: str) -> tuple[ShardPlan, Mapping[str, Checkpoint]] | None:
        """How a file is made whole, byte for byte, and from what: one that is decoded, or a weight
        file of a copy; None, if it is neither.
        """
        plan = self.shards.get(file)
        if isinstance(plan, FilePlan):
            return plan, self.inputs
        if file not in self._copied:
            return None
        source = self.checkpoint.as_bytes(file)
        info = source.tensors[file].info
        rule = TensorPlan.make("copy@1", {}, [InputTensor(THEIRS, info)])
        return FilePlan(file, (rule,)), {THEIRS: source}

    @property
    def _copied(self) -> frozenset[str]:
        """Names of the weight files of a copy; what is made as it is read has none of its own."""
        if isinstance(self.checkpoint, Derived):
            return frozenset()
        return frozenset(each.name for each in self.checkpoint.files)

    def headers(self, file: str, infos: Collection[TensorInfo]) -> Iterator[bytes]:
        """The headers that a file of ours with these tensors may have."""
        if file in self.shards:
            yield self.shards[file].header
        elif file.endswith(".safetensors") and file in self._copied:
            yield read_header(self.checkpoint.peek(file))[1]
        for dtype in _DTYPES if infos else ():
            casting = plan_casting(self.checkpoint.config, infos, dtype)
            cast = (replace(info, dtype=casting.dtype_of(info)) for info in infos)
            yield layout(cast, METADATA)[0]

    def header(self, file: str, digest: str, infos: Collection[TensorInfo]) -> bytes | None:
        """The header with this digest; None if none of `headers` has it."""
        found = (raw for raw in self.headers(file, infos) if bytes_digest(raw) == digest)
        return next(found, None)


@dataclass(frozen=True, slots=True)
class Reach:
    """How sources are opened."""

    room: Path
    """A directory for what is fetched, or made to be looked at."""
    offline: bool
    options: Options
    progress: Progress

    def locate(self, source: Where, *, adapter: bool = False) -> Where:
        """A SOURCE as a path, as `sources.locate.locate` has it."""
        return locate(
            source,
            kind="adapter" if adapter else "model",
            offline=self.offline,
            spool=self.room / "inputs",
            progress=self.progress,
        )


def open_truth(source: Where, manifest: Manifest, base: Where | None, reach: Reach) -> Truth:
    """Open what the user says to take the bytes from: a copy of the output, or what it was made
    from (``BASE+DELTA``; what was converted; of a delta the target, and its `base`).

    Raises: what opening it raises, and planning what would be made of it.
    """
    where = reach.locate(source)
    if isinstance(where, LocatedChain) and manifest.verb == "apply-delta":
        return made_by(plan_chain(where), where)
    found = recognise(where)
    is_ours = isinstance(found, Model) and found.manifest is not None
    if manifest.verb == "convert" and not is_ours:
        return made_by(plan_convert(where, NOWHERE), where)
    if manifest.verb == "make-delta" and not is_delta(found):
        base = base or manifest.origins.get("base")
        if base is None:
            return replace(copy_of(found, where, manifest), lacks_base=True)
        return _coded_by(reach.locate(base), where, manifest, reach)
    return copy_of(found, where, manifest)


def known_truth(manifest: Manifest, base: Where | None, reach: Reach) -> Truth | None:
    """What the manifest itself names, if all of it came from the hub; None where it did not.

    Raises: as `open_truth`.
    """
    if base is not None and "target" in manifest.origins:
        return open_truth(manifest.origins["target"], manifest, base, reach)
    names = known_origins(manifest)
    if names is None:
        return None
    at = {
        role: reach.locate(origin, adapter=role.startswith(("lora", "adapter")))
        for role, origin in names.items()
    }
    label = ", ".join(names.values())
    match manifest.verb, at:
        case "apply-delta", {"base": base, "delta": delta}:
            return made_by(plan_apply_delta(base, delta, target=NOWHERE), label)
        case "convert", {"source": source}:
            return made_by(plan_convert(source, NOWHERE), label)
        case "merge-lora", {"base": base, **loras}:
            return made_by(plan_merge_lora(base, list(loras.values()), NOWHERE), label)
        case "make-delta", {"base": base, "target": target}:
            return _coded_by(base, target, manifest, reach)
        case _:
            return None


def is_delta(found: Source) -> bool:
    """Whether it is a delta; a small one may look like a model."""
    if isinstance(found, Model) and found.manifest is not None:
        return found.manifest.verb == "make-delta"
    return isinstance(found, ExactDelta | AdditiveDelta)


def copy_of(found: Source, where: Where, manifest: Manifest) -> Truth:
    """Raises: EncodedRelease, NoWeights, for what is no copy of an output."""
    try:
        copy = found.checkpoint if isinstance(found, ExactDelta) else require_model(found)
    except NoWeights:  # files of a format of their own, or a version of a training run
        if (truth := _copy_of_files(Path(where), manifest)) is None:
            raise
        return truth
    checkpoint = named_like(copy, manifest.tensors)
    names = {*checkpoint.sidecars, *checkpoint.large} & manifest.sidecars.keys()
    contents = {name: checkpoint.sidecar(name) for name in names}
    for name in manifest.sidecars.keys() - names:
        if (path := checkpoint.directory / name).is_file():  # an index is no sidecar of its reader
            contents[name] = Content.of_file(path)
    return Truth(label_of(where), checkpoint, contents)


def _copy_of_files(folder: Path, manifest: Manifest) -> Truth | None:
    """A copy that is no model to us, as its files; None, if it has no file of the output."""
    weights, others = (
        [name for name in names if (folder / name).is_file()]
        for names in (manifest.files, manifest.sidecars)
    )
    if not weights and not others:
        return None
    contents = {name: Content.of_file(folder / name) for name in others}
    return Truth(str(folder), WholeFiles(folder, weights, str(folder)), contents)


def _coded_by(base: Where, target: Where, manifest: Manifest, reach: Reach) -> Truth:
    """What making a delta again would make; a version of a training run is not made again."""
    document = manifest.delta or {}
    label = f"{label_of(base)} and {label_of(target)}"
    adapter = manifest.origins.get("adapter")
    if document.get("form") == add_record.FORM:
        record = add_record.AddRecord.from_document(document)
        rows = record.new_rows
        job = plan_make_delta(base, target, NOWHERE, codec="add", new_rows=rows)
        return made_by(job, label)
    if str(document.get("form")) not in FORMS:
        return copy_of(recognise(target), target, manifest)
    exact = DeltaRecord.from_document(document)
    job = plan_make_delta(
        base,
        target,
        NOWHERE,
        adapter=None if adapter is None else reach.locate(adapter, adapter=True),
        portable=not exact.coded,
    )
    return Truth(
        label,
        job.bindings.inputs["target"],
        job.bindings.sidecars,
        {each.name: each for each in job.plan.shards},
        job.bindings.inputs,
        Encoding(job.plan, exact),
    )


def plan_chain(chain: LocatedChain, dtype: DTypeChoice = "delta") -> Job:
    """The last delta of a chain, applied to what comes before it."""
    *below, delta = chain.links
    label = PLUS.join(map(label_of, below))
    base = below[0] if len(below) == 1 else LocatedChain(tuple(below), label)
    return plan_apply_delta(base, delta, target=NOWHERE, dtype=dtype)


def made_by(job: Job, source: Where) -> Truth:
    """What a command would make now; where its options were others, digests tell."""
    derived = Derived(
        label=label_of(source),
        directory=next(iter(job.bindings.inputs.values())).directory,
        rules=job.plan.tensors,
        inputs=job.bindings.inputs,
        sidecars=job.bindings.sidecars,
    )
    shards = {each.name: each for each in job.plan.shards}
    return Truth(
        label_of(source), derived, job.bindings.sidecars, shards, job.bindings.inputs, job=job
    )

"""Where the right bytes of a damaged output can be had: a copy of it, or what it was made from."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.content import Content
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.checkpoint.renamed import named_like
from weightsmith.engine.derived import Derived
from weightsmith.engine.manifest import Manifest
from weightsmith.formats.safetensors_header import layout, read_header
from weightsmith.formats.tensors import TensorInfo
from weightsmith.hub.resolve import HubSource, parse_source
from weightsmith.ops.apply_delta import plan_apply_delta
from weightsmith.ops.convert import plan_convert
from weightsmith.ops.job import Job
from weightsmith.ops.merge_lora import plan_merge_lora
from weightsmith.plan.casts import plan_casting
from weightsmith.plan.model import METADATA, ShardPlan
from weightsmith.progress import SILENCE, Progress
from weightsmith.sources.kinds import ExactDelta, Model, require_model
from weightsmith.sources.links import PLUS
from weightsmith.sources.locate import LocatedChain, label_of, locate
from weightsmith.sources.recognise import recognise

_NOWHERE: Final = Path(os.sep, "weightsmith-nowhere")
"""A plan names its target; nothing is ever made there."""
_DTYPES: Final = ("", "F16", "BF16", "F32")
"""Dtypes to which a file whose header is lost may have been cast; empty: it was not cast."""


@dataclass(frozen=True, slots=True)
class Truth:
    """A source of bytes that may be right; the manifest's digests decide whether they are."""

    label: str
    checkpoint: Checkpoint
    sidecars: Mapping[str, Content]
    """Files beside the weights, as they would be published."""
    shards: Mapping[str, ShardPlan] = field(default_factory=dict)
    """By name, the files that the same command makes today."""

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


def open_truth(
    source: str | os.PathLike[str],
    manifest: Manifest,
    *,
    offline: bool = False,
    spool: Path | None = None,
    progress: Progress = SILENCE,
) -> Truth:
    """Open what the user says to take the bytes from: a copy of the output, or what it was made
    from (``BASE+DELTA``; what was converted).

    Raises: what opening it raises, and planning what would be made of it.
    """
    where = locate(source, offline=offline, spool=spool, progress=progress)
    if isinstance(where, LocatedChain) and manifest.verb == "apply-delta":
        *below, delta = where.links
        base = below[0] if len(below) == 1 else LocatedChain(tuple(below), _joined(below))
        return _made_by(plan_apply_delta(base, delta, target=_NOWHERE), where)
    found = recognise(where)
    copy = found.checkpoint if isinstance(found, ExactDelta) else require_model(found)
    ours = isinstance(found, Model) and found.manifest is not None
    if manifest.verb == "convert" and not ours:
        return _made_by(plan_convert(where, _NOWHERE), where)
    checkpoint = named_like(copy, manifest.tensors)
    names = {*checkpoint.sidecars, *checkpoint.large} & manifest.sidecars.keys()
    contents = {name: checkpoint.sidecar(name) for name in names}
    for name in manifest.sidecars.keys() - names:
        if (path := checkpoint.directory / name).is_file():  # an index is no sidecar of its reader
            contents[name] = Content.of_file(path)
    return Truth(label_of(where), checkpoint, contents)


def known_truth(
    manifest: Manifest,
    *,
    offline: bool = False,
    spool: Path | None = None,
    progress: Progress = SILENCE,
) -> Truth | None:
    """What the manifest itself names, if all of it came from the hub; None where it did not.

    Raises: as `open_truth`.
    """
    names = {
        role: origin
        for role, origin in manifest.origins.items()
        if isinstance(parse_source(origin), HubSource)
    }
    if not manifest.inputs or names.keys() != manifest.inputs.keys():
        return None
    at = {
        role: locate(
            origin,
            kind="adapter" if role.startswith("lora") else "model",
            offline=offline,
            spool=spool,
            progress=progress,
        )
        for role, origin in names.items()
    }
    label = ", ".join(names.values())
    match manifest.verb, at:
        case "apply-delta", {"base": base, "delta": delta}:
            return _made_by(plan_apply_delta(base, delta, target=_NOWHERE), label)
        case "convert", {"source": source}:
            return _made_by(plan_convert(source, _NOWHERE), label)
        case "merge-lora", {"base": base, **loras}:
            return _made_by(plan_merge_lora(base, list(loras.values()), _NOWHERE), label)
        case _:
            return None


def _joined(links: Sequence[str | os.PathLike[str]]) -> str:
    return PLUS.join(map(label_of, links))


def _made_by(job: Job, source: str | os.PathLike[str]) -> Truth:
    """What a command would make now; where its options were others, digests tell."""
    derived = Derived(
        label=label_of(source),
        directory=next(iter(job.bindings.inputs.values())).directory,
        rules=job.plan.tensors,
        inputs=job.bindings.inputs,
        sidecars=job.bindings.sidecars,
    )
    shards = {} if job.plan.makes_files else {each.name: each for each in job.plan.shards}
    return Truth(label_of(source), derived, job.bindings.sidecars, shards)

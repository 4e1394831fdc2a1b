"""Say what a source is, from headers and a few small tensors."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from weightsmith.catalogue.match import releases_named, shows_signs
from weightsmith.catalogue.schema import Release
from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.discover import list_directory
from weightsmith.checkpoint.layout import ADAPTER_CONFIG, layout_of
from weightsmith.checkpoint.shapes import told_by_shapes
from weightsmith.engine.manifest import Manifest
from weightsmith.errors import SourceFault, WeightsmithError
from weightsmith.formats.adapter import parse_adapter_config
from weightsmith.formats.tensors import TensorInfo
from weightsmith.ops.sidecars import read_for_diagnosis
from weightsmith.progress import SILENCE, Progress
from weightsmith.repair.detect import diagnose
from weightsmith.sources.dequantised import quantisation_of
from weightsmith.sources.disk_delta import DiskDelta
from weightsmith.sources.file_release import FileRelease
from weightsmith.sources.kinds import (
    Adapter,
    AdditiveDelta,
    Chain,
    ExactDelta,
    Meta,
    Model,
    TrainingOutput,
)
from weightsmith.sources.recognise import recognise
from weightsmith.sources.training.layout import FORM_WORDS, find_training, numbered
from weightsmith.units import format_percent

SourceKind = Literal[
    "model",
    "delta",
    "adapter",
    "meta",
    "training-output",
    "keystream-release",
    "xor-release",
    "unknown",
]

KIND_WORDS: Final[Mapping[SourceKind, str]] = {
    "model": "a model",
    "delta": "a delta: how a model differs from its base, useless alone",
    "adapter": "a LoRA adapter, useless without its base",
    "meta": "a model in Meta's own layout",
    "training-output": "a model as a training run left it, which convert makes loadable",
    "keystream-release": "files encrypted with another model's bytes (point-alpaca's way)",
    "xor-release": "files combined by XOR with another model's files (Open-Assistant's way)",
    "unknown": "tensors that may be a model's or a delta's: their values do not tell",
}
_UNRANKED: Final = frozenset({"IA3", "OFT"})
"""Kinds of adapters that have no rank."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a source is."""

    source: str
    kind: SourceKind
    reason: str
    about: str = ""
    """For an exact delta, its size as a share of the model, and its base."""
    release: str = ""
    """The catalogue's name for it, and by what it was recognised; empty if it is not known."""
    architecture: str = ""
    quantised: str = ""
    """The method and the bits a weight takes: ``gptq, 4 bit``."""
    tensors: int = 0
    parameters: int = 0
    nbytes: int = 0
    dtypes: tuple[tuple[str, int], ...] = ()
    """Bytes of each dtype, the largest first."""
    files: tuple[str, ...] = ()
    sidecars: tuple[str, ...] = ()
    made_by: str = ""
    """The version of weightsmith and the verb that made it, from its manifest."""
    fingerprint: str = ""
    faults: tuple[tuple[str, str], ...] = ()
    """Known faults of tokenizer and config: id and evidence."""
    notes: tuple[str, ...] = ()

    def to_document(self) -> dict[str, Any]:
        """The same as JSON values."""
        faults = [{"id": fault_id, "evidence": evidence} for fault_id, evidence in self.faults]
        return {**asdict(self), "dtypes": dict(self.dtypes), "faults": faults}


def inspect(
    source: str | os.PathLike[str], *, offline: bool = False, progress: Progress = SILENCE
) -> Inspection:
    """Say what a source is, reading headers, sidecars and a few small tensors.

    Raises: NoWeights, if there is nothing that weightsmith knows; DamagedInput, if it is damaged;
    what locating the source raises.
    """
    match recognise(source, offline=offline, progress=progress):
        case FileRelease() as found:
            return Inspection(
                source=found.label,
                kind="xor-release" if found.encoding == "xor-file" else "keystream-release",
                reason=found.why,
                release=found.release.name if found.release else "",
                files=found.files,
            )
        case ExactDelta() as found:
            return _inspect_delta(found)
        case Adapter() as found:
            return _inspect_adapter(found)
        case Meta() as found:
            seen = _inspect_checkpoint(found.checkpoint, None)
            return replace(seen, kind="meta", reason=found.why)
        case TrainingOutput() as found:
            seen = _inspect_checkpoint(found.checkpoint, None)
            reason = f"{FORM_WORDS[found.form]}: {found.why}"
            return replace(seen, kind="training-output", reason=reason)
        case DiskDelta() as found:
            versions = sorted(found.versions)
            which = f"version {versions[0]}"
            if len(versions) > 1:
                which = f"{len(versions)} versions, {versions[0]} to {versions[-1]}"
            return Inspection(
                source=found.label,
                kind="delta",
                reason=f"{found.why}: {which}",
                files=tuple(file.name for file in found.checkpoint.files),
                notes=tuple(f"{name} is still being written" for name in found.unfinished),
            )
        case Chain() as found:
            seen = _inspect_checkpoint(found.checkpoint, None)
            return replace(seen, kind="model", reason=found.why)
        case Model() | AdditiveDelta() as found:
            if found.fault is not None:
                raise found.fault
            seen = _inspect_checkpoint(found.checkpoint, found.manifest)
            return replace(seen, kind=found.guess.kind, reason=found.why)


def held_by(source: str) -> list[str]:
    """The sources that a name stands for: those inside, by name, if it is a directory that holds
    several and is none itself; else the name alone.
    """
    path = Path(source)
    if not os.path.isdir(path):  # noqa: PTH112  (Path.is_dir raises where a name is too long)
        return [source]
    files, folders = list_directory(path)
    if layout_of(files) is not None or _is_training(path):
        return [source]
    inner = [path / folder for folder in folders if _holds_a_source(path / folder)]
    return [str(each) for each in inner] if len(inner) > 1 else [source]


def _is_training(path: Path) -> bool:
    """Whether it is a training output, or holds the steps of one run, which count as one model."""
    try:
        return (find_training(path, str(path)) or numbered(path, str(path))) is not None
    except WeightsmithError:
        return True  # opening it will say what is wrong


def _holds_a_source(folder: Path) -> bool:
    try:
        return layout_of(list_directory(folder)[0]) is not None
    except SourceFault:
        return False


def _inspect_delta(found: ExactDelta) -> Inspection:
    """Describe an exact delta from its record: the model that applying it makes, and its base."""
    delta, manifest, record = found.checkpoint, found.manifest, found.record
    made = [tensor.info for tensor in record.tensors]
    share = format_percent(delta.nbytes / max(sum(info.nbytes for info in made), 1))
    return Inspection(
        source=delta.label,
        kind="delta",
        reason=f"weightsmith made it: {share} of the model's size, to the base {record.base}",
        about=f"{share}, base {record.base.id or record.base.fingerprint[:12]}",
        architecture=_architecture(delta.config),
        tensors=len(made),
        parameters=sum(info.numel for info in made),
        nbytes=delta.nbytes,
        dtypes=_held(made),
        files=tuple(file.name for file in delta.files),
        sidecars=delta.sidecars,
        made_by=f"{manifest.made_by}, {manifest.verb}",
        fingerprint=record.fingerprint,
        notes=(*filter(None, [record.low_rank]), *delta.notes),
    )


def _inspect_adapter(found: Adapter) -> Inspection:
    """Describe an adapter: its kind and rank, and the base that its config names."""
    lora, built = found.checkpoint, ""
    faults: tuple[tuple[str, str], ...] = ()
    try:
        raw = lora.read_sidecar(ADAPTER_CONFIG)
        config = parse_adapter_config(raw, lora.directory / ADAPTER_CONFIG, lora.label)
        rank = f", rank {config.rank}" if config.kind not in _UNRANKED else ""
        built = config.kind + rank + (f", for {config.base}" if config.base else "")
    except WeightsmithError as error:
        faults = ((error.reference, str(error)),)
    infos = [tensor.info for tensor in lora.tensors.values()]
    return Inspection(
        source=found.label,
        kind="adapter",
        reason=found.why,
        architecture=built,
        tensors=len(infos),
        parameters=sum(info.numel for info in infos),
        nbytes=lora.nbytes,
        dtypes=_held(infos),
        files=tuple(file.name for file in lora.files),
        faults=faults,
        notes=lora.notes,
    )


def _held(infos: Iterable[TensorInfo]) -> tuple[tuple[str, int], ...]:
    """Bytes of each dtype, the largest first."""
    held = Counter[str]()
    for info in infos:
        held[info.dtype] += info.nbytes
    return tuple(held.most_common())


def _inspect_checkpoint(checkpoint: Checkpoint, manifest: Manifest | None) -> Inspection:
    """Describe a model or an additive delta: tensors, config and faults of the tokenizer."""
    notes = list(checkpoint.notes)
    try:
        files = read_for_diagnosis(checkpoint)
        rows, names = checkpoint.embedding_rows, checkpoint.sidecars
        found = diagnose(files, embedding_rows=rows, names=names).faults
        faults = tuple((fault.id, f"{fault.file}: {fault.evidence}") for fault in found)
    except WeightsmithError as error:
        faults = ((error.reference, str(error)),)
    quantised = None
    try:
        quantised = quantisation_of(checkpoint)
    except WeightsmithError as error:
        faults = (*faults, (error.reference, str(error)))
    weights = quantised.infos(t.info for t in checkpoint.tensors.values()) if quantised else None
    release, why = _release(checkpoint)
    return Inspection(
        source=checkpoint.label,
        kind="unknown",
        reason="",
        release=f"{release.name} ({why})" if release else "",
        architecture=_architecture(checkpoint.config) or _by_shapes(checkpoint),
        quantised=str(quantised or ""),
        tensors=len(checkpoint.tensors),
        parameters=sum(
            info.numel
            for info in weights or (t.info for t in checkpoint.tensors.values())
            if not is_buffer(info.name, info.shape)
        ),
        nbytes=checkpoint.nbytes,
        dtypes=_held(tensor.info for tensor in checkpoint.tensors.values()),
        files=tuple(file.name for file in checkpoint.files),
        sidecars=checkpoint.sidecars,
        made_by=f"{manifest.made_by}, {manifest.verb}" if manifest else "",
        fingerprint=manifest.fingerprint if manifest else "",
        faults=faults,
        notes=tuple(notes),
    )


def _release(checkpoint: Checkpoint) -> tuple[Release | None, str]:
    """The catalogue's release that this name or config points to, and which of them it was."""
    for release, repo in releases_named(checkpoint.known_as):
        return release, f"the directory is named like {repo}"
    alike = shows_signs(checkpoint.config)
    if alike:
        more = f", or one of {len(alike) - 1} like it" if len(alike) > 1 else ""
        return alike[0], f"by its config{more}"
    return None, ""


def _by_shapes(checkpoint: Checkpoint) -> str:
    """What the tensors' shapes tell of the architecture, for a model without a config."""
    told = told_by_shapes(checkpoint)
    return f"{told}, by its tensors; there is no config.json" if told else ""


def _architecture(config: Mapping[str, Any]) -> str:
    """``llama, hidden 4096, 32 layers, 32 heads, vocabulary 32000``, as far as the config says."""
    parts = [str(config["model_type"])] if "model_type" in config else []
    for words, keys in (
        ("hidden {}", ("hidden_size", "n_embd")),
        ("{} layers", ("num_hidden_layers", "n_layer")),
        ("{} heads", ("num_attention_heads", "n_head")),
        ("vocabulary {}", ("vocab_size",)),
    ):
        value = next((config[key] for key in keys if key in config), None)
        if value is not None:
            parts.append(words.format(value))
    return ", ".join(parts)

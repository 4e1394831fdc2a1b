"""Say what a source is, from headers and a few small tensors."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from weightsmith import fs
from weightsmith.catalogue.recognise import named_like, shows_signs
from weightsmith.catalogue.schema import Release
from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.kind import guess_kind
from weightsmith.checkpoint.layout import layout_of
from weightsmith.engine.manifest import Manifest, read_manifest
from weightsmith.errors import WeightsmithError
from weightsmith.formats.tensors import TensorInfo
from weightsmith.ops.deltas.encoded import find_encoded
from weightsmith.ops.deltas.exact import find_record
from weightsmith.plan.exact_record import DeltaRecord
from weightsmith.repair.detect import diagnose
from weightsmith.sources.locate import label_of, locate, open_payloads, open_source
from weightsmith.units import format_percent

Kind = Literal["model", "delta", "adapter", "meta", "keystream-release", "xor-release", "unknown"]

KIND_WORDS: Final[Mapping[Kind, str]] = {
    "model": "a model",
    "delta": "a delta: a model's difference to its base, useless alone",
    "adapter": "a LoRA adapter, useless without its base",
    "meta": "a model in Meta's own layout",
    "keystream-release": "files encrypted with another model's bytes (point-alpaca's way)",
    "xor-release": "files combined by XOR with another model's files (Open-Assistant's way)",
    "unknown": "tensors that do not give away whether they are a model or a delta",
}


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a source is."""

    source: str
    kind: Kind
    reason: str
    release: str = ""
    """The catalogue's name for it, and why, where it is known."""
    architecture: str = ""
    tensors: int = 0
    parameters: int = 0
    nbytes: int = 0
    dtypes: tuple[tuple[str, int], ...] = ()
    """Bytes by dtype, most first."""
    files: tuple[str, ...] = ()
    sidecars: tuple[str, ...] = ()
    made_by: str = ""
    """Which weightsmith made it by which verb, by its manifest."""
    fingerprint: str = ""
    faults: tuple[tuple[str, str], ...] = ()
    """Known faults of tokenizer and config: id and evidence."""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        faults = [{"id": fault_id, "evidence": evidence} for fault_id, evidence in self.faults]
        return {**asdict(self), "dtypes": dict(self.dtypes), "faults": faults}


def inspect(source: str | os.PathLike[str]) -> Inspection:
    """Open a directory and say what it is; reads headers, sidecars and a few norm weights.

    Raises: SourceNotFound, SourceIsFile; NoWeights, where there is nothing known; DamagedInput for
    what is broken.
    """
    source = locate(source)
    directory = Path(source)
    fs.require_directory(directory)
    if encoded := find_encoded(source):
        return Inspection(
            source=label_of(source),
            kind="xor-release" if encoded.encoding == "xor-file" else "keystream-release",
            reason=encoded.layout.reason,
            release=encoded.release.name if encoded.release else "",
            files=encoded.layout.files,
        )
    if exact := find_record(source):
        return _inspect_delta(open_payloads(source), *exact)
    layout = layout_of(directory)
    if layout is None or layout.kind == "huggingface":
        return _inspect_checkpoint(open_source(source))
    if layout.kind == "meta":
        found = _inspect_checkpoint(open_source(source))
        return replace(found, kind="meta", reason=layout.reason)
    return Inspection(label_of(source), layout.kind, layout.reason, files=layout.files)


def _inspect_delta(delta: Checkpoint, manifest: Manifest, record: DeltaRecord) -> Inspection:
    """An exact delta, by its record: what applying it makes, and of which base."""
    made = [tensor.info for tensor in record.tensors]
    share = format_percent(delta.nbytes / max(sum(info.nbytes for info in made), 1))
    base = record.base.id or f"of fingerprint {record.base.fingerprint[:16]}..."
    return Inspection(
        source=delta.label,
        kind="delta",
        reason=f"weightsmith made it: {share} of the model it gives with its base, {base}",
        architecture=_architecture(delta.config),
        tensors=len(made),
        parameters=sum(info.numel for info in made),
        nbytes=delta.nbytes,
        dtypes=_held(made),
        files=tuple(file.name for file in delta.files),
        sidecars=delta.sidecars,
        made_by=f"{manifest.made_by}, {manifest.verb}",
        fingerprint=record.fingerprint,
        notes=delta.notes,
    )


def _held(infos: Iterable[TensorInfo]) -> tuple[tuple[str, int], ...]:
    """Bytes by dtype, most first."""
    held = Counter[str]()
    for info in infos:
        held[info.dtype] += info.nbytes
    return tuple(held.most_common())


def _inspect_checkpoint(checkpoint: Checkpoint) -> Inspection:
    guess = guess_kind(checkpoint)
    notes = list(checkpoint.notes)
    try:
        files = {name: checkpoint.read_sidecar(name) for name in checkpoint.sidecars}
        found = diagnose(files, embedding_rows=checkpoint.embedding_rows).faults
        faults = tuple((fault.id, f"{fault.file}: {fault.evidence}") for fault in found)
    except WeightsmithError as error:
        faults = ((error.reference, str(error)),)
    manifest = read_manifest(checkpoint.directory)
    release, why = _release(checkpoint)
    return Inspection(
        source=checkpoint.label,
        kind=guess.kind,
        reason=guess.reason,
        release=f"{release.name} ({why})" if release else "",
        architecture=_architecture(checkpoint.config),
        tensors=len(checkpoint.tensors),
        parameters=sum(
            t.info.numel
            for name, t in checkpoint.tensors.items()
            if not is_buffer(name, t.info.shape)
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
    """The catalogue's release of this name or config, without knowing the base."""
    for release, repo in named_like(checkpoint.known_as):
        return release, f"the directory is named like {repo}"
    alike = shows_signs(checkpoint.config)
    if alike:
        more = f", or one of {len(alike) - 1} like it" if len(alike) > 1 else ""
        return alike[0], f"by its config{more}"
    return None, ""


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

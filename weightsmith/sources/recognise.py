"""What a SOURCE is: one of a few frozen values, for commands to match on.

It is told from the names and headers of a folder, and from a few norm weights, before anything
large is read. Each manifest and each header is read once, here.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.discover import list_directory, no_weights
from weightsmith.checkpoint.kind import Guess, guess_kind
from weightsmith.checkpoint.layout import LayoutKind, layout_of
from weightsmith.checkpoint.opening import open_checkpoint
from weightsmith.engine.file_outputs import open_output
from weightsmith.engine.manifest import NAME as MANIFEST
from weightsmith.engine.manifest import Manifest, read_manifest
from weightsmith.errors import (
    DamagedInput,
    DeltaInvalid,
    EncodedRelease,
    NoWeights,
    SourceNotFound,
    WeightsmithError,
)
from weightsmith.plan.add_record import AddRecord
from weightsmith.plan.exact_record import DeltaRecord
from weightsmith.progress import SILENCE, Progress
from weightsmith.sources.file_release import FileRelease, find_file_release
from weightsmith.sources.locate import Located, label_of, locate
from weightsmith.sources.meta import open_meta


class _Opened:
    """What all opened sources share."""

    __slots__ = ()
    checkpoint: Checkpoint

    @property
    def label(self) -> str:
        """The source as the user wrote it."""
        return self.checkpoint.label


@dataclass(frozen=True, slots=True)
class Model(_Opened):
    """Weights in Hugging Face's layout, whole as far as can be told."""

    checkpoint: Checkpoint
    guess: Guess
    """``model`` or ``unknown``, and by which tensors."""
    manifest: Manifest | None = None
    """The record of how it was made, of an output of ours."""
    fault: WeightsmithError | None = None
    """Why there is no manifest though there is a file of its name."""

    @property
    def why(self) -> str:
        """What it was taken for this by, as a clause."""
        return self.guess.reason


@dataclass(frozen=True, slots=True)
class AdditiveDelta(_Opened):
    """Weights to be added to a base's."""

    checkpoint: Checkpoint
    guess: Guess
    manifest: Manifest | None = None
    record: AddRecord | None = None
    """What weightsmith wrote of a delta that it made; None for anybody else's."""
    fault: WeightsmithError | None = None

    @property
    def why(self) -> str:
        """What it was taken for this by, as a clause."""
        return self.guess.reason


@dataclass(frozen=True, slots=True)
class ExactDelta(_Opened):
    """A target coded against its base, bit for bit."""

    checkpoint: Checkpoint
    """The tensors of bytes that it stores."""
    manifest: Manifest
    record: DeltaRecord

    @property
    def why(self) -> str:
        """What it was taken for this by, as a clause."""
        return f"it holds what to change in its base, {self.record.base}"


@dataclass(frozen=True, slots=True)
class Meta(_Opened):
    """A model in Meta's own layout, read as Hugging Face's."""

    checkpoint: Checkpoint
    why: str


@dataclass(frozen=True, slots=True)
class Adapter(_Opened):
    """A LoRA adapter, whose config is one of its sidecars."""

    checkpoint: Checkpoint
    why: str


Source = Model | AdditiveDelta | ExactDelta | Meta | Adapter | FileRelease


def recognise(
    source: str | os.PathLike[str], *, offline: bool = False, progress: Progress = SILENCE
) -> Source:
    """Open a SOURCE as what it is; what is on the hub is fetched first, unless `offline`.

    The order: a release of whole files, whose weight files are none yet; an exact delta, by its
    index; Hugging Face's weights, and of those an additive delta by its record or its norm weights;
    an adapter; Meta's layout.
    Raises: SourceNotFound, SourceUnreadable, SourceIsFile; NoWeights, where there is nothing known;
    what opening it raises: SourceFault for what is missing, DamagedInput for what is broken.
    """
    source = locate(source, offline=offline, progress=progress)
    directory = _directory(source)
    store = source.store if isinstance(source, Located) else None
    if store is None and (release := find_file_release(source)):
        return release
    names = {*list_directory(directory)[0], *(store.weights if store is not None else ())}
    layout = layout_of(names)
    if layout is None or layout.kind == "huggingface":
        return _weights(source, directory)
    match layout.kind:
        case "exact-delta":
            manifest, record = _exact_record(directory)
            return ExactDelta(_opened(source, "exact-delta"), manifest, record)
        case "meta":
            model = open_meta(directory, layout.files, label=label_of(source))
            model.origin = source.origin if isinstance(source, Located) else ""
            return Meta(model, layout.reason)
        case _:
            return Adapter(_opened(source, "adapter"), layout.reason)


def open_model(
    source: str | os.PathLike[str], *, offline: bool = False, progress: Progress = SILENCE
) -> Checkpoint:
    """Open a SOURCE that is to serve as a model: weights, of Hugging Face's or of Meta's layout.

    An additive delta is let through: a model's weights and a delta's are told apart by appearances,
    which a command may overrule.
    Raises: EncodedRelease, for files that are no weights until they are decoded; NoWeights, for all
    else that is no model; as `recognise`.
    """
    return require_model(recognise(source, offline=offline, progress=progress))


def require_model(source: Source) -> Checkpoint:
    """What was recognised, as a model; raises as `open_model`."""
    match source:
        case FileRelease():
            way = f"weightsmith apply-delta --key FILE --delta {source.label}"
            if source.encoding == "xor-file":
                way = f"weightsmith apply-delta --base BASE --delta {source.label}"
            hint = f"decode it first: {way}"
            raise EncodedRelease(source=source.label, reason=source.why, hint=hint)
        case Model() | AdditiveDelta() | Meta() if source.checkpoint.files:
            return source.checkpoint
        case _:
            raise no_weights(source.checkpoint.directory)


def open_lora(
    source: str | os.PathLike[str], *, offline: bool = False, progress: Progress = SILENCE
) -> Checkpoint:
    """Open a SOURCE that is to serve as an adapter, whatever lies beside it.

    Raises: SourceNotFound, SourceUnreadable, NoAdapter, AdapterNotMergeable; DamagedInput.
    """
    source = locate(source, kind="adapter", offline=offline, progress=progress)
    _directory(source)
    return _opened(source, "adapter")


def _weights(source: str | os.PathLike[str], directory: Path) -> Model | AdditiveDelta:
    """Tensors in Hugging Face's layout, or an output of ours that names no file as weights."""
    manifest, record, fault = None, None, None
    try:
        manifest = read_manifest(directory)
        if manifest is not None and manifest.delta is not None:
            record = AddRecord.from_document(manifest.delta)
    except WeightsmithError as error:  # of the weights it says nothing: whom it matters to, says it
        fault = error
    try:
        checkpoint = _opened(source, "huggingface")
    except NoWeights:
        if not os.path.lexists(directory / MANIFEST):
            raise
        return Model(open_output(directory), Guess("unknown", "it has no weights"), manifest, fault)
    guess = _guess(checkpoint)
    if record is not None and guess.kind != "delta":
        guess = Guess("delta", f"its {MANIFEST} holds the record of a delta")
    if guess.kind == "delta":
        return AdditiveDelta(checkpoint, guess, manifest, record, fault)
    return Model(checkpoint, guess, manifest, fault)


def _guess(checkpoint: Checkpoint) -> Guess:
    """Model or delta; what is damaged tells neither, and is met again by whoever reads it."""
    try:
        return guess_kind(checkpoint)
    except DamagedInput as error:
        return Guess("unknown", str(error))


def _exact_record(directory: Path) -> tuple[Manifest, DeltaRecord]:
    """Raises: DeltaInvalid, DeltaUnknown, JsonInvalid."""
    manifest = read_manifest(directory)
    if manifest is None or manifest.delta is None:
        raise DeltaInvalid(name=MANIFEST, reason="there is none, or no record in it")
    return manifest, DeltaRecord.from_document(manifest.delta)


def _opened(source: str | os.PathLike[str], kind: LayoutKind) -> Checkpoint:
    """A located source, its weight files brought by its store where it has one."""
    path, label = Path(source), label_of(source)
    if not isinstance(source, Located):
        return open_checkpoint(path, label, kind=kind)
    store = source.store
    elsewhere = store.weights if store is not None else ()
    checkpoint = open_checkpoint(path, label, kind=kind, store=store, elsewhere=elsewhere)
    checkpoint.origin = source.origin
    return checkpoint


def _directory(source: str | os.PathLike[str]) -> Path:
    """The directory of a located source.

    Raises: SourceNotFound, LinkBroken, SourceIsFile, SourceUnreadable.
    """
    if not label_of(source):  # an unset variable, say; as a path it would be the working directory
        raise SourceNotFound(source='""')
    path = Path(source)
    fs.require_directory(path)
    return path

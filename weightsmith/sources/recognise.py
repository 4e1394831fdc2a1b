"""Find out what a SOURCE is: one of a few frozen values, which commands match on.

File names, headers and a few norm weights decide, before anything large is read. Each manifest and
each header is read once, here.
"""

import os
from pathlib import Path

from weightsmith import fs
from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.discover import list_directory
from weightsmith.checkpoint.kind import Guess, guess_kind
from weightsmith.checkpoint.layout import DELTA_INDEX, LayoutKind, layout_of
from weightsmith.checkpoint.opening import open_checkpoint
from weightsmith.engine.file_outputs import open_output
from weightsmith.engine.manifest import NAME as MANIFEST
from weightsmith.engine.manifest import Manifest, read_manifest
from weightsmith.errors import (
    DamagedInput,
    DeltaInvalid,
    NoParameters,
    NoTensors,
    NoWeights,
    SourceIsFile,
    SourceNotFound,
    StateEmpty,
    WeightsmithError,
)
from weightsmith.plan.add_record import AddRecord
from weightsmith.plan.exact_record import FORMS, DeltaRecord
from weightsmith.progress import SILENCE, Progress
from weightsmith.sources.chain import naming, put_on
from weightsmith.sources.disk_delta import find_disk_delta
from weightsmith.sources.file_release import FileRelease, find_file_release
from weightsmith.sources.kinds import (
    Adapter,
    AdditiveDelta,
    Chain,
    ExactDelta,
    Meta,
    Model,
    Source,
    TrainingOutput,
    require_model,
)
from weightsmith.sources.links import PLUS
from weightsmith.sources.listed import require_listed
from weightsmith.sources.locate import Located, LocatedChain, label_of, locate, split_tag
from weightsmith.sources.meta import open_meta
from weightsmith.sources.names import with_own_names
from weightsmith.sources.training.by_config import check_by_config
from weightsmith.sources.training.layout import (
    SINGLE,
    Layout,
    find_training,
    is_one_of_several,
    numbered,
    single_file,
    states_below,
)
from weightsmith.sources.training.opening import open_training, refuse_choice
from weightsmith.sources.training.zero import Weights


def recognise(
    source: str | os.PathLike[str],
    *,
    weights: Weights | None = None,
    offline: bool = False,
    progress: Progress = SILENCE,
) -> Source:
    """Open a SOURCE as what it is; a repository on the hub is downloaded first, unless `offline`.

    These are tried in order: a single file; files of the processes of a training run, even if they
    are named like a model's; a release of encoded files, whose weight files cannot be read yet; an
    exact delta, by its index; Hugging Face's weights, a model or, by their record or norm weights,
    an additive delta; an adapter; Meta's layout; other training outputs.
    `weights` chooses a precision of DeepSpeed's states; these are then taken even if a model lies
    beside them.
    Raises: SourceNotFound, SourceUnreadable; NoWeights, if there is nothing that is known; what
    opening it raises: SourceFault, if something is missing, DamagedInput, if it is damaged.
    """
    source = locate(source, offline=offline, progress=progress)
    if isinstance(source, LocatedChain):
        return _chained(source, weights)
    if not isinstance(source, Located):
        path, tag = split_tag(source)
        if os.path.isfile(path):  # noqa: PTH113  (Path.is_file raises where a name is too long)
            if (home := _home(path)) is not None:
                said = f"read with what lies beside it in {home}"
                return _chosen(recognise(home, weights=weights), label_of(source), said)
            if path.suffix in SINGLE and not is_one_of_several(path.name):
                return _trained(single_file(path, label_of(source)), source, weights)
            raise SourceIsFile(source=path, directory=path.parent)
        folder, label = _directory(source, path), label_of(source)
        states = weights is not None
        training = find_training(folder, label, tag=tag, prefers_states=states)
        if training is not None:
            return _trained(training, source, weights)
        if not tag and (versions := find_disk_delta(folder, label)) is not None:
            return versions
        if layout_of(list_directory(folder)[0]) is None or tag:
            chosen = numbered(folder, label, tag=tag)
            if chosen is not None:
                return _chosen(recognise(chosen[0], weights=weights), label, chosen[1])
    elif source.store is None and (versions := find_disk_delta(Path(source), source.label)):
        return versions
    found = _untrained(source)
    if weights is not None:  # a fault of the source is reported before one of the choice
        refuse_choice(label_of(source), weights)
    return found


def _untrained(source: str | os.PathLike[str]) -> Source:
    """Recognise a source that is not a training output."""
    directory = _directory(source, Path(source))
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
    source: str | os.PathLike[str],
    *,
    weights: Weights | None = None,
    offline: bool = False,
    progress: Progress = SILENCE,
) -> Checkpoint:
    """Open a SOURCE as a model: weights in Hugging Face's or Meta's layout, a training output, or a
    chain. `weights` is that of `recognise`.

    An additive delta is accepted, for its values only suggest that it is one; commands that care
    check it themselves.
    Raises: EncodedRelease, for files that have to be decoded first; NoWeights, for anything else
    that is not a model; as `recognise`.
    """
    return require_model(recognise(source, weights=weights, offline=offline, progress=progress))


def open_lora(
    source: str | os.PathLike[str], *, offline: bool = False, progress: Progress = SILENCE
) -> Checkpoint:
    """Open a SOURCE as an adapter, whatever else its directory holds.

    Raises: SourceNotFound, SourceUnreadable, NoAdapter, AdapterNotMergeable; DamagedInput.
    """
    source = locate(source, kind="adapter", offline=offline, progress=progress)
    if not isinstance(source, Located):
        source = _home(Path(source)) or source
    _directory(source, Path(source))
    return _opened(source, "adapter")


def _home(file: Path) -> Path | None:
    """The directory of `file` if it is the only weight file of a model or adapter there."""
    if not os.path.isfile(file):  # noqa: PTH113  (Path.is_file raises where a name is too long)
        return None
    layout = layout_of(list_directory(file.parent)[0])
    alone = layout is not None and layout.files == (file.name,) and not layout.index_name
    return file.parent if alone else None


def _chained(source: LocatedChain, weights: Weights | None) -> Chain:
    """The model of a chain: each delta applied to the result of the links before it.

    Raises: as `chain.put_on`.
    """
    first, *deltas = source.links
    checkpoint = require_model(recognise(first, weights=weights))
    names = [label_of(each) for each in source.links]
    labels = [PLUS.join(names[: number + 2]) for number in range(len(deltas))]
    found = []
    for each, name in zip(deltas, names[1:], strict=True):
        with naming(name):
            found.append(recognise(each))
    return Chain(put_on(checkpoint, found, labels), tuple(names))


def _trained(
    layout: Layout, source: str | os.PathLike[str], weights: Weights | None
) -> TrainingOutput:
    """Open a training output, its tensors under the model's own names."""
    opened = open_training(layout, label_of(source), weights)
    if not opened.tensors:
        raise NoTensors(source=opened.label)
    checkpoint = _sound(opened)
    checkpoint.notes = (*checkpoint.notes, *check_by_config(checkpoint, checkpoint.config))
    return TrainingOutput(checkpoint, layout.form, layout.reason)


def _chosen(found: Source, label: str, said: str) -> Source:
    """What was recognised inside a directory, under the directory's label and with a note on it."""
    match found:
        case FileRelease():
            return found
        case _:
            found.checkpoint.label = label
            found.checkpoint.notes = (said, *found.checkpoint.notes)
            return found


def _sound(checkpoint: Checkpoint) -> Checkpoint:
    """Check that a checkpoint is whole and has values; return it under the model's own names.

    Raises: NamesAmbiguous; NoParameters, and StateEmpty, where half of the tensors or more have no
    elements; IndexIncomplete, CopiesDiffer.
    """
    empty = [name for name, tensor in checkpoint.tensors.items() if not tensor.info.numel]
    buffers = [n for n, each in checkpoint.tensors.items() if is_buffer(n, each.info.shape)]
    if empty and checkpoint.tensors.keys() <= {*empty, *buffers}:
        states = states_below(checkpoint.directory)
        hint = f"ZeRO-3 leaves it so: the weights are in {states}, give that" if states else None
        raise NoParameters(source=checkpoint.label, count=len(empty), hint=hint)
    if empty and 2 * len(empty) >= len(checkpoint.tensors):
        raise StateEmpty(
            source=checkpoint.label,
            count=len(empty),
            total=len(checkpoint.tensors),
            context=empty,
        )
    require_listed(checkpoint)
    return with_own_names(checkpoint)


def _weights(source: str | os.PathLike[str], directory: Path) -> Model | AdditiveDelta:
    """Open weights in Hugging Face's layout, or an output of weightsmith that other names hold."""
    manifest, record, fault = None, None, None
    try:
        manifest = read_manifest(directory)
        if manifest is not None and manifest.delta is not None:
            if str(manifest.delta.get("form")) in FORMS:  # or it had been taken for an exact delta
                raise DeltaInvalid(name=DELTA_INDEX, reason="it is missing")
            record = AddRecord.from_document(manifest.delta)
    except WeightsmithError as error:  # the weights may be sound: who needs the manifest reports it
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
    """Guess whether it is a model or a delta; unknown if the norm weights are damaged, which is
    reported later.
    """
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
    """Open a located source; if it has a store, that fetches its weight files."""
    path, label = Path(source), label_of(source)
    if not isinstance(source, Located):
        return _named(open_checkpoint(path, label, kind=kind), kind)
    store = source.store
    elsewhere = store.weights if store is not None else ()
    checkpoint = open_checkpoint(path, label, kind=kind, store=store, elsewhere=elsewhere)
    checkpoint.origin = source.origin
    return _named(checkpoint, kind)


def _named(checkpoint: Checkpoint, kind: LayoutKind) -> Checkpoint:
    """Under the model's own names; the payloads of an exact delta keep those of its target."""
    return checkpoint if kind == "exact-delta" else _sound(checkpoint)


def _directory(source: str | os.PathLike[str], path: Path) -> Path:
    """The directory of a located source.

    Raises: SourceNotFound, LinkBroken, SourceIsFile, SourceUnreadable.
    """
    if not label_of(source):  # an unset variable, say; as a path it would be the working directory
        raise SourceNotFound(source='""')
    fs.require_directory(path)
    return path

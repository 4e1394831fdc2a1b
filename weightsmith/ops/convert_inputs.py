"""Open what a conversion reads: the source, and models that fill its gaps or give sidecars."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.content import Content
from weightsmith.checkpoint.discover import list_directory
from weightsmith.checkpoint.renamed import named_like
from weightsmith.checkpoint.shapes import told_by_shapes
from weightsmith.checkpoint.sidecars import CARD, CONFIG, is_sidecar
from weightsmith.checkpoint.store import LocalStore
from weightsmith.checkpoint.tied import OUTPUT_MATRICES, ties_embeddings
from weightsmith.errors import NotQuantised, NoWeights
from weightsmith.formats.tensors import TensorInfo
from weightsmith.ops.sidecars import Sidecars, choose_sidecars, publish_sidecars
from weightsmith.plan.model import InputTensor
from weightsmith.plan.selection import Selection
from weightsmith.progress import SILENCE, Progress
from weightsmith.sources.dequantised import dequantised, dequantised_note, quantisation_of
from weightsmith.sources.kinds import TrainingOutput, require_model
from weightsmith.sources.locate import label_of, locate
from weightsmith.sources.names import with_own_names
from weightsmith.sources.recognise import open_model, recognise
from weightsmith.sources.training.by_config import check_by_config, require_named
from weightsmith.sources.training.zero import Weights
from weightsmith.units import counted, format_size

Path_ = str | os.PathLike[str]

SOURCE: Final = "source"
FILL: Final = "fill"
SIDECARS: Final = "sidecars"


@dataclass(frozen=True, slots=True)
class ConvertInputs:
    """The checkpoints that a conversion reads, by role, and what was decided on the way."""

    roles: Mapping[str, Checkpoint]
    notes: tuple[str, ...]

    @property
    def source(self) -> Checkpoint:
        """The model that is converted, its tensors under their new names."""
        return self.roles[SOURCE]

    @property
    def config(self) -> Mapping[str, Any]:
        """The config that the output will have; empty if none of the inputs has one."""
        order = (SIDECARS,) if SIDECARS in self.roles else (SOURCE, FILL)
        return next((c for role in order if (c := self._config(role))), {})

    def _config(self, role: str) -> Mapping[str, Any]:
        return self.roles[role].config if role in self.roles else {}

    def tensors(self) -> list[InputTensor]:
        """All tensors that are read, those of the source first."""
        found = [InputTensor(SOURCE, each.info) for each in self.source.tensors.values()]
        if FILL in self.roles:
            filled = (tensor.info for tensor in self.roles[FILL].tensors.values())
            found += [InputTensor(FILL, info) for info in filled]
        return found

    def sidecars(self, outputs: list[TensorInfo], *, repair: bool, all_sidecars: bool) -> Sidecars:
        """The files to publish beside the weights; with `repair`, mended.

        Raises: JsonInvalid, SidecarEscapes, LfsPointer.
        """
        if SIDECARS not in self.roles:
            return choose_sidecars(self.roles, outputs, repair=repair, all_sidecars=all_sidecars)
        names = [name for name in self.roles[SIDECARS].sidecars if name != CARD]
        origins = dict.fromkeys(names, SIDECARS)
        return publish_sidecars(self.roles, origins, outputs, repair=repair)


def open_inputs(
    source: Path_,
    *,
    weights: Weights | None,
    selection: Selection,
    fill_from: Path_ | None,
    sidecars_from: Path_ | None,
    dequantize: str = "",
    offline: bool = False,
    progress: Progress = SILENCE,
) -> ConvertInputs:
    """Open all that a conversion reads, and decide which tensors it writes under which names.

    With `dequantize`, a format code such as ``BF16``, the source's quantised weights are read as
    floats of that dtype.
    Raises: NothingNamed, RenameInvalid, NamesAmbiguous; NamesNotConfig, ShapesNotConfig;
    NotQuantised and what `quantisation_of` raises; what opening a source raises.
    """
    found = recognise(source, weights=weights, offline=offline, progress=progress)
    checkpoint = require_model(found)
    roles: dict[str, Checkpoint] = {}
    notes: list[str] = []
    sidecars, base = None, None
    if dequantize:
        quantised = quantisation_of(checkpoint)
        if quantised is None:
            raise NotQuantised(source=checkpoint.label)
        checkpoint = dequantised(checkpoint, quantised, dequantize)
        notes.append(dequantised_note(quantised, dequantize))
    if sidecars_from is not None:
        sidecars = _sidecars(locate(sidecars_from, offline=offline, progress=progress))
    if fill_from is not None:
        base = open_model(fill_from, offline=offline, progress=progress)
    for other in (base, sidecars):
        if other is not None and other.tensors:
            checkpoint = with_own_names(checkpoint, other.tensors)
            break
    if sidecars is not None:
        roles[SIDECARS] = _Beside(sidecars)
        notes += _said(checkpoint, sidecars)
    if selection:
        names = selection.names(checkpoint.label, [*checkpoint.tensors])
        notes += _chosen(checkpoint, names)
        checkpoint = checkpoint.renamed(names)
    if base is not None:
        base = named_like(base, checkpoint.tensors)
        lacking, said = _lacking(base, checkpoint)
        roles[FILL] = base.renamed(dict.fromkeys({*base.tensors} - {*lacking}, ""))
        notes += said
    inputs = ConvertInputs({SOURCE: checkpoint, **roles}, tuple(notes))
    if isinstance(found, TrainingOutput):
        require_named(checkpoint, inputs.config)
        # What was said of the names as they were, and by the config beside them, holds no more.
        before = check_by_config(found.checkpoint, found.checkpoint.config)
        checkpoint.notes = tuple(note for note in checkpoint.notes if note not in before)
        now = check_by_config(checkpoint, inputs.config)
        notes += [] if base is not None else now
    return replace(inputs, notes=(*notes, *_missing_config(inputs)))


def _sidecars(located: Path_) -> Checkpoint:
    """Open a model for its sidecars; a directory with a config and no weights will do.

    Raises: NoWeights, if there is no config either; as `open_model`.
    """
    try:
        return open_model(located)
    except NoWeights:
        names = [name for name in list_directory(Path(located))[0] if is_sidecar(name)]
        if CONFIG[0] not in names:
            raise
        return Checkpoint(
            label=label_of(located),
            directory=Path(located),
            store=LocalStore(Path(located)),
            files=(),
            tensors={},
            sidecars=tuple(names),
            notes=(),
        )


class _Beside(Checkpoint):
    """The files beside a model's weights, without the weights."""

    def __init__(self, model: Checkpoint) -> None:
        super().__init__(
            label=model.label,
            directory=model.directory,
            store=LocalStore(model.directory),
            files=(),
            tensors={},
            sidecars=model.sidecars,
            notes=(),
        )
        self.origin = model.origin
        self._model = model

    def read_sidecar(self, name: str) -> bytes:
        """Read the model's own file."""
        return self._model.read_sidecar(name)

    def sidecar(self, name: str) -> Content:
        """The model's own."""
        return self._model.sidecar(name)


def _said(checkpoint: Checkpoint, sidecars: Checkpoint) -> list[str]:
    """Notes on which sidecars are taken, and which of the source's own are not."""
    own = [name for name in checkpoint.sidecars if name != CARD]
    said = [f"config and tokenizer are those of {sidecars.label}"]
    return said + ([f"not used, the source's own: {', '.join(own)}"] if own else [])


def _chosen(checkpoint: Checkpoint, names: Mapping[str, str]) -> list[str]:
    """Notes on what choosing and renaming did, and what it means for the config."""
    left = [name for name, new in names.items() if not new]
    renamed = [name for name, new in names.items() if new]
    said = []
    if left:
        nbytes = sum(checkpoint.tensors[name].info.nbytes for name in left)
        said.append(
            f"left out, as asked for: {counted(len(left), 'tensor')}, {format_size(nbytes)}"
        )
    if renamed:
        said.append(f"renamed, as asked for: {counted(len(renamed), 'tensor')}")
    if checkpoint.config:
        architecture = checkpoint.config.get("architectures")
        name = architecture[0] if isinstance(architecture, list) and architecture else "a model"
        said.append(f"config.json still describes {name}: check that it fits these tensors")
        if isinstance(checkpoint.config.get("text_config"), dict):
            said.append("to load its text model alone, make its text_config the whole config.json")
    return said


def _lacking(base: Checkpoint, checkpoint: Checkpoint) -> tuple[list[str], list[str]]:
    """Tensors of the base that the source lacks, and a note on them."""
    tied = ties_embeddings(base.config) is True
    lacking = [
        name
        for name, tensor in base.tensors.items()
        if name not in checkpoint.tensors
        and not is_buffer(name, tensor.info.shape)
        and not (tied and name.endswith(OUTPUT_MATRICES))
    ]
    if not lacking:
        return [], [f"nothing is filled in: the source has all tensors of {base.label}"]
    some = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
    return lacking, [f"filled in from {base.label}, {counted(len(lacking), 'tensor')}: {some}"]


def _missing_config(inputs: ConvertInputs) -> list[str]:
    """A note if the output will have no config, with what the tensors' shapes tell instead."""
    if inputs.config:
        return []
    told = told_by_shapes(inputs.source)
    by_tensors = f"; by the tensors: {told}" if told else ""
    return [f"there is no config.json, without which nothing loads it{by_tensors}"]

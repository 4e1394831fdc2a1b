"""Open what training left as a checkpoint, with the config and tokenizer that belong to it."""

import os
from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import MAX_CONFIG_NBYTES, Checkpoint
from weightsmith.checkpoint.discover import list_directory
from weightsmith.checkpoint.opening import open_weight_file
from weightsmith.checkpoint.sidecars import CONFIG, may_be_pushed
from weightsmith.errors import OptionMeaningless, SourceFault
from weightsmith.sources.training.dcp import open_dcp
from weightsmith.sources.training.dcp_safetensors import open_dcp_safetensors
from weightsmith.sources.training.layout import Layout
from weightsmith.sources.training.ranks import open_ranks
from weightsmith.sources.training.zero import Weights, open_zero

_SCRIPTS: Final = ("zero_to_fp32.py", "zero_to_torch.py")
"""What DeepSpeed puts beside its states, which is no code of the model."""
_CODE: Final = b'"auto_map"'
"""What a config has that goes with code of its own."""
_FACTOR: Final = ".lora_A."
_OF_AN_ADAPTER: Final = "its tensors are an adapter's, which is no model without its base"


def open_training(layout: Layout, label: str, weights: Weights | None = None) -> Checkpoint:
    """The tensors of what `layout` found, under the names that they were saved with.

    Raises: OptionMeaningless, if `weights` are to be chosen where there is no choice; as
    `open_ranks`, `open_dcp`, `open_dcp_safetensors`, `open_zero` and `open_weight_file`.
    """
    if weights is not None and layout.form != "zero":
        refuse_choice(label, weights)
    match layout.form:
        case "ranks":
            checkpoint: Checkpoint = open_ranks(layout.directory, layout.ranks, label, layout.world)
        case "dcp":
            checkpoint = open_dcp(layout.directory, label)
        case "dcp-safetensors":
            checkpoint = open_dcp_safetensors(layout.directory, layout.files, label)
        case "zero":
            checkpoint = open_zero(layout.directory, layout.folder, layout.files, label, weights)
        case "file":
            checkpoint = open_weight_file(layout.directory, layout.files[0], label)
    checkpoint.notes = (*checkpoint.notes, *layout.notes)
    if any(_FACTOR in name for name in checkpoint.tensors):
        checkpoint.notes = (*checkpoint.notes, _OF_AN_ADAPTER)
    _take_sidecars(checkpoint, layout)
    return checkpoint


def refuse_choice(label: str, weights: Weights) -> None:
    """Raises: OptionMeaningless, for a source that holds each weight once."""
    raise OptionMeaningless(
        options=f"`weights={weights}`",
        reason=f"{label} holds each weight once",
        hint="leave it out; `dtype` casts what there is",
    )


def _take_sidecars(checkpoint: Checkpoint, layout: Layout) -> None:
    """Config and tokenizer, from the directories where such a run puts them; a directory that is
    not the output's own counts only if it has a config.
    """
    homes: dict[str, Path] = {}
    for directory in layout.beside:
        there = _sidecars(directory)
        if directory != layout.beside[0] and CONFIG[0] not in there:
            continue
        new = [name for name in there if name not in homes]
        if new and directory != layout.beside[0]:
            own = os.path.relpath(directory, layout.beside[0])
            note = f"config and tokenizer are those of {own}/"
            checkpoint.notes = (*checkpoint.notes, note)
        homes |= dict.fromkeys(new, directory)
    checkpoint.take_sidecars({name: name for name in homes}, homes)


def _sidecars(directory: Path) -> list[str]:
    """Files whose purpose is known: what else lies where somebody trains may be anything. Code is
    the model's where its config says that there is some.
    """
    try:
        names = list_directory(directory)[0]
    except SourceFault:
        return []
    known = [name for name in names if may_be_pushed(name)]
    if CONFIG[0] in known:
        raw = fs.read_small(directory / CONFIG[0], MAX_CONFIG_NBYTES)
        if _CODE in raw:
            return [name for name in known if name not in _SCRIPTS]
    return [name for name in known if not name.endswith(".py")]

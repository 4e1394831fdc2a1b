"""Compare an index with the files that it lists: tensors that it leaves out, or that are in two."""

import re
from collections.abc import Iterator
from typing import Final

from weightsmith.catalogue.architectures import expected_tensors
from weightsmith.checkpoint.buffers import is_buffer
from weightsmith.checkpoint.checkpoint import INPUT_EMBEDDINGS, Checkpoint
from weightsmith.checkpoint.tied import OUTPUT_MATRICES, ties_embeddings
from weightsmith.errors import CopiesDiffer, IndexIncomplete, WeightsmithError

_NUMBER: Final = re.compile(r"\.(\d+)\.")


def require_listed(checkpoint: Checkpoint) -> None:
    """Refuse an index that leaves out what the model needs, or hides another version of it.

    Reads the tensors that are in two files.
    Raises: IndexIncomplete, CopiesDiffer.
    """
    if not checkpoint.unlisted and not checkpoint.stale:
        return
    needed = set(_needed(checkpoint, {*checkpoint.unlisted, *checkpoint.stale}))
    if left := [name for name in checkpoint.unlisted if name in needed]:
        raise IndexIncomplete(
            index=f"the index of {checkpoint.label}",
            count=len(left),
            context=[f"{name} is in {checkpoint.unlisted[name]}" for name in left],
        )
    apart = [
        f"{name} is in {checkpoint.tensors[name].file}, and another in {copy.file}"
        for name, copy in checkpoint.stale.items()
        if name in needed and not checkpoint.is_copy(copy)
    ]
    if apart:
        raise CopiesDiffer(source=checkpoint.label, count=len(apart), context=apart)


def _needed(checkpoint: Checkpoint, names: set[str]) -> Iterator[str]:
    """Those of `names` that a model of this config needs.

    If the architecture has no table of tensors, a layer needs what most other layers have, and a
    model needs its embedding, and its output layer unless the config ties it to the embedding.
    """
    config = checkpoint.config
    try:
        known = expected_tensors(config)
    except (ValueError, WeightsmithError):  # damage is reported by what reads the config
        known = None
    if known is not None:
        yield from names & known.shapes.keys()
        return
    text = config.get("text_config")
    layers = next(
        (
            part["num_hidden_layers"]
            for part in (config, text)
            if isinstance(part, dict) and isinstance(part.get("num_hidden_layers"), int)
        ),
        0,
    )
    listed = {_NUMBER.sub(".{}.", name) for name in checkpoint.tensors}
    for name in names:
        number = _NUMBER.search(name)
        if is_buffer(name, ()):
            continue
        if number is not None:
            kind = _NUMBER.sub(".{}.", name)
            if int(number[1]) < layers and (kind in listed or name in checkpoint.stale):
                yield name
        elif name.endswith(OUTPUT_MATRICES):
            if ties_embeddings(config) is False:
                yield name
        elif config and name.endswith(INPUT_EMBEDDINGS):
            yield name

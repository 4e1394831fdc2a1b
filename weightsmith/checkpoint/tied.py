"""Output layers that are the model's input embedding, stored once or, all the same, twice."""

from collections.abc import Mapping
from typing import Final

from weightsmith.checkpoint.checkpoint import INPUT_EMBEDDINGS, Checkpoint
from weightsmith.checkpoint.digest import SPAN_NBYTES
from weightsmith.formats.tensors import TensorInfo

OUTPUT_MATRICES: Final = ("lm_head.weight", "embed_out.weight")
HEADS: Final = (*OUTPUT_MATRICES, "lm_head.bias")
"""Endings of the output layer's name in known architectures; it has a row for each token."""


def ties_embeddings(config: Mapping[str, object]) -> bool | None:
    """Whether a config ties the output layer to the input embedding; None where it does not say.

    A config of several models says so at its top, or in the part that is about text.
    """
    for part in (config, config.get("text_config")):
        said = part.get("tie_word_embeddings") if isinstance(part, Mapping) else None
        if isinstance(said, bool):
            return said
    return None


def ties_head(checkpoint: Checkpoint) -> bool:
    """Whether the output layer of a model that stores none is its input embedding.

    Many configs leave out what is their model type's default, so that only a plain no counts.
    """
    names = checkpoint.config.get("architectures")
    architecture = str(names[0]) if isinstance(names, list) and names else "ForCausalLM"
    return (
        architecture.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))
        and ties_embeddings(checkpoint.config) is not False
        and not any(name.endswith(HEADS) for name in checkpoint.tensors)
    )


def tied_copies(checkpoint: Checkpoint, *, compare: bool) -> Mapping[str, str]:
    """Output matrices that are the input embedding, by name, unless the config says otherwise.

    They lie in the same bytes of a torch file that names both; with `compare`, those that do not
    are read, and count where every byte is equal.
    """
    if ties_embeddings(checkpoint.config) is False:
        return {}
    tensors = checkpoint.tensors.items()
    return {
        name: kept
        for name, copy in tensors
        if name.endswith(OUTPUT_MATRICES)
        for kept, embedding in tensors
        if kept.endswith(INPUT_EMBEDDINGS)
        and (copy.place == embedding.place or (compare and same_bytes(checkpoint, name, kept)))
    }


def parted_heads(checkpoint: Checkpoint, copies: Mapping[str, str]) -> list[str]:
    """Output matrices beside an input embedding that are none of its `copies`."""
    has_embedding = any(name.endswith(INPUT_EMBEDDINGS) for name in checkpoint.tensors)
    heads = [name for name in checkpoint.tensors if name.endswith(OUTPUT_MATRICES)]
    return [name for name in heads if has_embedding and name not in copies]


def without_copy(checkpoint: Checkpoint, other: Checkpoint) -> dict[str, TensorInfo]:
    """All tensors but a second copy of the input embedding, where the other's output layer is tied
    to it and not stored.
    """
    copies = tied_copies(checkpoint, compare=True) if ties_head(other) else {}
    return {name: each.info for name, each in checkpoint.tensors.items() if name not in copies}


def same_bytes(checkpoint: Checkpoint, left: str, right: str) -> bool:
    """Whether two tensors have one dtype, one shape and the same bytes, which are read."""
    infos = [checkpoint.tensors[name].info for name in (left, right)]
    if (infos[0].dtype, infos[0].shape) != (infos[1].dtype, infos[1].shape):
        return False
    nbytes = infos[0].nbytes
    for start in range(0, nbytes, SPAN_NBYTES):
        blocks = [bytearray(min(SPAN_NBYTES, nbytes - start)) for _ in infos]
        for info, block in zip(infos, blocks, strict=True):
            checkpoint.read_into(info.name, start, memoryview(block))
        if blocks[0] != blocks[1]:
            return False
    return True

"""Describe a model without a config from the names and shapes of its tensors."""

from weightsmith.checkpoint.checkpoint import INPUT_EMBEDDINGS, Checkpoint
from weightsmith.checkpoint.layers import positions


def told_by_shapes(checkpoint: Checkpoint) -> str:
    """``hidden 4096, 32 layers, vocabulary 32000``, as far as the shapes show it; may be empty."""
    layers = [position.layer for position in positions(checkpoint.tensors).values()]
    count = max((layer for layer in layers if layer is not None), default=-1) + 1
    embedding = next(
        (
            tensor.info.shape
            for name, tensor in checkpoint.tensors.items()
            if name.endswith(INPUT_EMBEDDINGS) and len(tensor.info.shape) == 2
        ),
        None,
    )
    parts = [f"hidden {embedding[1]}"] if embedding else []
    parts += [f"{count} layers"] if count else []
    parts += [f"vocabulary {embedding[0]}"] if embedding else []
    return ", ".join(parts)

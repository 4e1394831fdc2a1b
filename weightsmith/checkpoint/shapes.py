"""What the names and shapes of a model's tensors tell of it where no config does."""

from weightsmith.checkpoint.checkpoint import INPUT_EMBEDDINGS, Checkpoint
from weightsmith.checkpoint.layers import positions


def told_by_shapes(checkpoint: Checkpoint) -> str:
    """``hidden 4096, 32 layers, vocabulary 32000``, as far as it can be told; else nothing."""
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

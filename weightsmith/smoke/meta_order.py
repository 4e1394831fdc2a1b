"""Notice that a model's query and key weights stand in the order of Meta's own files."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

_ROTATED: Final = ("q_proj", "k_proj")


@contextmanager
def reordered(model: Any) -> Iterator[bool]:
    """Let the model compute as if its q and k were in Meta's order, with pairs of neighbours.

    The permutation that a converter applies to the rows of the weights is applied to their outputs
    here, so that it also works for weights that are read from disk when needed. Yields whether
    there was anything to reorder. A right model gets worse by it; one that lacked the permutation
    gets right.
    Source: transformers ``convert_llama_weights_to_hf.py``, `permute`.
    """
    head = _head_size(model.config)
    modules = [m for name, m in model.named_modules() if name.endswith(_ROTATED)]
    fitting = [m for m in modules if head and not getattr(m, "out_features", 1) % head]

    def permute(_module: Any, _given: Any, out: Any) -> Any:
        heads = out.unflatten(-1, (-1, head // 2, 2))
        return heads.transpose(-1, -2).flatten(-3)

    handles = [module.register_forward_hook(permute) for module in fitting]
    try:
        yield bool(handles)
    finally:
        for handle in handles:
            handle.remove()


def _head_size(config: Any) -> int:
    """Elements of a head; 0 where the config does not say, or the number is odd."""
    size = getattr(config, "head_dim", None)
    if size is None and getattr(config, "num_attention_heads", None):
        size = getattr(config, "hidden_size", 0) // config.num_attention_heads
    return size if size and size % 2 == 0 else 0

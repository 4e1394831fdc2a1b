"""Tensors that old transformers saved as if they were weights."""

from typing import Final

BUFFERS: Final = (
    ".rotary_emb.inv_freq",
    ".rotary_emb.cos_cached",
    ".rotary_emb.sin_cached",
)
"""Values computed from the config, which today's loaders never read; no output holds them.

Source: transformers 4.32 release notes, which made them non-persistent.
"""
_MASKS: Final = ("attn.bias", "attention.bias", ".causal_mask")
"""What attention may look at, in GPT-2 and its kin; (1, 1, n, n), a shape that no bias has.

Source: transformers 4.30 ``modeling_gpt2.py``, ``modeling_gpt_neox.py``, ``modeling_codegen.py``.
"""
_MASKED: Final = ".masked_bias"
"""The number that stands for minus infinity in such a mask."""


def is_buffer(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is one of `BUFFERS`, or belongs to a causal mask."""
    if name.endswith(_MASKS):
        return len(shape) == 4 and shape == (1, 1, shape[-1], shape[-1])
    if name.endswith(_MASKED):
        return shape in {(), (1,)}
    return name.endswith(BUFFERS)

"""Tensors that old transformers saved as if they were weights."""

import fnmatch
from typing import Final

BUFFERS: Final = (
    "*.rotary_emb.inv_freq",
    "*.rotary_emb.cos_cached",
    "*.rotary_emb.sin_cached",
)
"""Values computed from the config, which today's loaders never read; no output holds them.

Source: transformers 4.32 release notes, which made them non-persistent.
"""


def is_buffer(name: str) -> bool:
    """Whether a tensor is one of `BUFFERS`."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in BUFFERS)

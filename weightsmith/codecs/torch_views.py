"""Bytes as torch tensors and back, without copying; the only way codecs reach torch."""

import threading
from types import ModuleType
from typing import TYPE_CHECKING

from weightsmith.formats.tensors import TORCH_NAMES

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_thread = threading.local()


def import_torch() -> ModuleType:
    """Import torch and keep its own threads out of this one: spans are the unit of parallelism."""
    import torch

    if not getattr(_thread, "limited", False):
        torch.set_num_threads(1)
        _thread.limited = True
    return torch


def torch_dtype(dtype: str) -> "torch.dtype":
    """``"BF16"`` -> ``torch.bfloat16``."""
    found: torch.dtype = getattr(import_torch(), TORCH_NAMES[dtype])
    return found


def view(block: memoryview, dtype: str) -> "Tensor":
    """The block's bytes as a flat tensor that shares its memory."""
    torch = import_torch()
    found: Tensor = (
        torch.frombuffer(block, dtype=torch_dtype(dtype))
        if block  # torch refuses an empty buffer
        else torch.empty(0, dtype=torch_dtype(dtype))
    )
    return found

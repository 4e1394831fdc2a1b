"""Hold a folder of tensors against what a vector's ``expected.json`` has of them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from tests.support.spans import CODES, raw


def tensor_sums(folder: Path) -> dict[str, str]:
    """Dtype, shape and SHA-256 of every tensor, by name."""
    tensors: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    return {name: tensor_sum(tensor) for name, tensor in tensors.items()}


def tensor_sum(tensor: Tensor) -> str:
    """``BF16 [4, 8] 0a1b...``."""
    digest = hashlib.sha256(raw(tensor)).hexdigest()[:32]
    return f"{CODES[tensor.dtype]} {list(tensor.shape)} {digest}"


def expected_sums(vector: Path, what: str) -> Mapping[str, str]:
    """Those of one of a vector's results."""
    found: Mapping[str, str] = json.loads((vector / "expected.json").read_text())[what]
    return found

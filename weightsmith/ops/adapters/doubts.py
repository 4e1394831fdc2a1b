"""Signs that an adapter does nothing, or was made for another base."""

import re
from collections.abc import Iterator
from typing import Final

from weightsmith.checkpoint.checkpoint import INPUT_EMBEDDINGS, Checkpoint
from weightsmith.checkpoint.tied import OUTPUT_MATRICES, same_bytes
from weightsmith.formats.adapter import AdapterConfig
from weightsmith.formats.adapter_parts import parse_part

_QUANTISED: Final = re.compile(r"(-unsloth)?-bnb-4bit$")
"""The end of the name of a base that was quantised for training, and is otherwise the same."""


def has_same_head(lora: Checkpoint) -> bool:
    """Whether the adapter stores input embedding and output layer, both whole and equal."""
    whole = ("whole", "base_layer")
    wholes = {part.tensor: n for n in lora.tensors if (part := parse_part(n)).kind in whole}
    pair = [
        next((name for tensor, name in wholes.items() if tensor.endswith(names)), None)
        for names in (INPUT_EMBEDDINGS, OUTPUT_MATRICES)
    ]
    left, right = pair
    return left is not None and right is not None and same_bytes(lora, left, right)


def doubts(lora: Checkpoint, config: AdapterConfig, base: Checkpoint) -> Iterator[str]:
    """Such signs, as clauses that follow the adapter's name."""
    if _is_zero(lora):
        yield "is all zero: merging it changes nothing"
    theirs = _last_word(config.base)
    ours = {_last_word(name) for name in (base.label, str(base.config.get("_name_or_path", "")))}
    # In the hub's cache the directory is named after a commit, and its grandparent after the model.
    ours |= {_last_word(part.replace("--", "/")) for part in base.directory.resolve().parts}
    if theirs and theirs not in ours:
        yield f"says that it was trained on {config.base}; is {base.label} the same model?"


def _last_word(name: str) -> str:
    """A model's name without owner, path, revision and quantiser's suffix, in lower case."""
    return _QUANTISED.sub("", name.partition("@")[0].rstrip("/").rpartition("/")[2].lower())


def _is_zero(lora: Checkpoint) -> bool:
    """Whether the adapter holds nothing but products, each with a factor that is all zero."""
    products: dict[str, list[str]] = {}
    for name in lora.tensors:
        part = parse_part(name)
        if part.kind not in {"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B"}:
            return False
        products.setdefault(part.tensor, []).append(name)
    return all(any(_is_zero_tensor(lora, name) for name in names) for names in products.values())


def _is_zero_tensor(lora: Checkpoint, name: str) -> bool:
    """Whether all bytes of a small tensor are zero."""
    return not lora.read_small(name).strip(b"\0")

"""The index of a sharded checkpoint: which file holds which tensor."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from weightsmith.errors import IndexEscapes, IndexInvalid
from weightsmith.formats.strict_json import parse_json

_NEVER_IN_A_NAME: Final = frozenset("/\\:\0")
"""Separators of any system, a drive or stream's colon, and NUL."""


@dataclass(frozen=True, slots=True)
class Index:
    """A parsed ``*.index.json``."""

    weight_map: dict[str, str]
    """Tensor name -> name of a file beside the index."""
    metadata: dict[str, object]
    """Other notes of the writer, as a rule ``total_size``; often wrong, and not relied on."""


def parse_index(raw: bytes, file: Path, *, may_be_empty: bool = False) -> Index:
    """The index in `raw`; `file` is only named in errors.

    Raises: JsonInvalid; IndexInvalid, if it holds no map from names to names; IndexEscapes, if it
    names anything but a file in its own directory.
    """
    content = parse_json(raw, file)
    if not isinstance(content, dict):
        raise IndexInvalid(file=file, reason="it is no map")
    weight_map, metadata = content.get("weight_map"), content.get("metadata")
    if not isinstance(weight_map, dict):
        raise IndexInvalid(file=file, reason="it has no weight_map")
    if not weight_map and not may_be_empty:
        raise IndexInvalid(file=file, reason="its weight_map is empty")
    if metadata is not None and not isinstance(metadata, dict):
        raise IndexInvalid(file=file, reason="its metadata is no map")
    for tensor, name in weight_map.items():
        if not isinstance(name, str):
            raise IndexInvalid(file=file, reason=f"it gives no file name for {tensor}")
        if name in {"", ".", ".."} or not _NEVER_IN_A_NAME.isdisjoint(name):
            raise IndexEscapes(file=file, name=name or '""')
    return Index(weight_map, metadata or {})


def build_index(
    weight_map: Mapping[str, str], total_size: int, total_parameters: int | None = None
) -> bytes:
    """The bytes of an index, as transformers writes it.

    Units: `total_size` in bytes of all tensors, headers not counted.
    """
    metadata = {"total_size": total_size}
    if total_parameters is not None:
        metadata["total_parameters"] = total_parameters
    content = {"metadata": metadata, "weight_map": dict(weight_map)}
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode("ascii")

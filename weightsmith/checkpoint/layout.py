"""Tell what a directory holds by its file names and the first bytes of its weight files."""

import fnmatch
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from weightsmith import fs
from weightsmith.checkpoint.discover import INDEXES, WEIGHTS, list_directory
from weightsmith.errors import WeightsmithError

Kind = Literal["huggingface", "adapter", "meta", "keystream-release", "xor-release"]

META_WEIGHTS: Final = re.compile(r"consolidated\.\d\d\.pth")
"""Meta's weight files; there are never a hundred of them."""
PARAMS: Final = "params.json"
ENCRYPTED: Final = re.compile(r"(.+)\.([0-9a-f]{64})\.enc")
"""A file XORed with a key stream: the name and the sha256 of what it decodes to."""
GZIP_MAGIC: Final = b"\x1f\x8b"
_ZEROS: Final = bytes(4)
"""What is left of the first bytes of two zip archives that were combined by XOR."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a directory is, why, and its weight files."""

    kind: Kind
    reason: str
    files: tuple[str, ...]


def layout_of(directory: Path) -> Layout | None:
    """The layout of a directory, or None where nothing that is known lies in it.

    Raises: SourceNotFound, SourceUnreadable, for the directory.
    """
    names, _ = list_directory(directory)
    weights = tuple(
        name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in WEIGHTS)
    )
    if weights or any(name in names for name in INDEXES):
        if weights and all(_is_combined(directory / name) for name in weights):
            reason = f"{weights[0]} begins with zeros where a torch file begins with PK"
            return Layout("xor-release", reason, weights)
        return Layout("huggingface", "its weight files are named as Hugging Face's", weights)
    adapters = tuple(name for name in names if name.startswith("adapter_model."))
    if "adapter_config.json" in names and adapters:
        return Layout("adapter", "it holds adapter_config.json", adapters)
    consolidated = tuple(name for name in names if META_WEIGHTS.fullmatch(name))
    if PARAMS in names and consolidated:
        return Layout("meta", f"it holds {PARAMS}", consolidated)
    encrypted = tuple(name for name in names if ENCRYPTED.fullmatch(name))
    if encrypted:
        return Layout("keystream-release", "its file names end in a sha256 and .enc", encrypted)
    return None


def _is_combined(path: Path) -> bool:
    """Whether a ``.bin`` file is XOR of two torch files, perhaps compressed, and no torch file."""
    if path.suffix != ".bin":
        return False
    try:
        file = fs.open_for_reading(path)
        start = file.read(0, min(file.size, len(_ZEROS)))
    except WeightsmithError:
        return False  # whoever opens it as a checkpoint says what is wrong with it
    return start == _ZEROS or start.startswith(GZIP_MAGIC)

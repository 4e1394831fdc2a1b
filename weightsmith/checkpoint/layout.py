"""Recognise what a folder or a repository holds by the names of its files alone."""

import fnmatch
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from weightsmith.formats.index import Index, parse_index

LayoutKind = Literal["exact-delta", "huggingface", "adapter", "meta", "keystream-release"]
Format = Literal["safetensors", "bin", "pth", "enc"]

KINDS: Final[tuple[LayoutKind, ...]] = (
    "exact-delta",
    "huggingface",
    "adapter",
    "meta",
    "keystream-release",
)
"""The order in which they are looked for: the first that is there is what a folder is taken for.

Weights in Hugging Face's layout go before Meta's beside them, which are the same model once more.
"""
FORMATS: Final[tuple[Format, ...]] = ("safetensors", "bin")
"""Of Hugging Face's layout and of adapters, in order of preference where both lie there."""
INDEXES: Final = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
"""In the order of `FORMATS`."""
WEIGHTS: Final = ("model*.safetensors", "pytorch_model*.bin")
"""The weight files of each format where there is no index, in the same order."""
ADAPTER_CONFIG: Final = "adapter_config.json"
ADAPTER_WEIGHTS: Final = ("adapter_model.safetensors", "adapter_model.bin")
"""The one weight file of an adapter, in the order of `FORMATS`."""
DELTA_INDEX: Final = "delta.safetensors.index.json"
"""The index of an exact delta; no loader takes it for one of weights."""
MANIFEST: Final = "weightsmith.json"
"""The record inside an output of ours."""
META_WEIGHTS: Final = re.compile(r"consolidated\.\d\d\.pth")
"""Meta's weight files; there are never a hundred of them."""
PARAMS: Final = "params.json"
ENCRYPTED: Final = re.compile(r"(.+)\.([0-9a-f]{64})\.enc")
"""A file XORed with a key stream: the name and the sha256 of what it decodes to."""
LOOKS_LIKE_WEIGHTS: Final = (
    "*.safetensors",
    "*.bin",
    "*.pt",
    "*.pth",
    "*.gguf",
    "*.msgpack",
    "*.h5",
)


@dataclass(frozen=True, slots=True)
class Layout:
    """What the files of a folder or a repository are, and how they were recognised."""

    kind: LayoutKind
    reason: str
    """A clause: ``"it holds adapter_config.json"``."""
    format: Format
    files: tuple[str, ...]
    """The weight files by their names; where there is an index, it decides."""
    index_name: str = ""
    """The index that lists them, if one does."""
    also: tuple[str, ...] = ()
    """Other files that this layout uses, if they are there."""

    def weights(self, read: Callable[[str], bytes], where: Path) -> tuple[list[str], Index | None]:
        """The weight files in the order of their names, and the index that lists them, if any.

        `read` is asked for the index; `where` is the folder's path, for errors.
        Raises: JsonInvalid, IndexInvalid, IndexEscapes; what `read` raises.
        """
        if not self.index_name:
            return sorted(self.files), None
        may_be_empty = self.kind == "exact-delta"  # then the target is its base
        raw = read(self.index_name)
        index = parse_index(raw, where / self.index_name, may_be_empty=may_be_empty)
        return sorted({*index.weight_map.values()}), index


def layout_of(
    names: Collection[str],
    *,
    kinds: Iterable[LayoutKind] = KINDS,
    formats: Sequence[Format] = FORMATS,
) -> Layout | None:
    """The first of `kinds` that lies among these files, or None where none of them does.

    With `formats`, weight files of other formats do not count.
    """
    there = set(names)
    for kind in kinds:
        match kind:
            case "exact-delta":
                found = _exact_delta(there, formats)
            case "huggingface":
                found = _huggingface(there, formats)
            case "adapter":
                found = _adapter(there, formats)
            case "meta":
                found = _meta(there)
            case "keystream-release":
                found = _encrypted(there)
        if found is not None:
            return found
    return None


def looks_like_weights(name: str) -> bool:
    """Whether a file of this name holds tensors of some format, ours to read or not."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in LOOKS_LIKE_WEIGHTS)


def _exact_delta(names: set[str], formats: Sequence[Format]) -> Layout | None:
    if DELTA_INDEX not in names or "safetensors" not in formats:
        return None
    reason = f"it holds {DELTA_INDEX}"
    return Layout("exact-delta", reason, "safetensors", (), DELTA_INDEX, (DELTA_INDEX, MANIFEST))


def _huggingface(names: set[str], formats: Sequence[Format]) -> Layout | None:
    reason = "its weight files are named as Hugging Face's"
    for format_, index, pattern in zip(FORMATS, INDEXES, WEIGHTS, strict=True):
        files = tuple(sorted(fnmatch.filter(names, pattern)))
        if format_ in formats and (files or index in names):
            listed = index if index in names else ""
            also = (index, MANIFEST)
            return Layout("huggingface", reason, format_, files, listed, also)
    return None


def _adapter(names: set[str], formats: Sequence[Format]) -> Layout | None:
    reason = f"it holds {ADAPTER_CONFIG}"
    for format_, file in zip(FORMATS, ADAPTER_WEIGHTS, strict=True):
        if format_ in formats and file in names and ADAPTER_CONFIG in names:
            return Layout("adapter", reason, format_, (file,), also=(ADAPTER_CONFIG,))
    return None


def _meta(names: set[str]) -> Layout | None:
    files = tuple(sorted(filter(META_WEIGHTS.fullmatch, names)))
    if not files or PARAMS not in names:
        return None
    also = (PARAMS, "checklist.chk")
    return Layout("meta", f"it holds {PARAMS} and {files[0]}", "pth", files, also=also)


def _encrypted(names: set[str]) -> Layout | None:
    files = tuple(sorted(filter(ENCRYPTED.fullmatch, names)))
    reason = "its file names end in a sha256 and .enc"
    return Layout("keystream-release", reason, "enc", files) if files else None

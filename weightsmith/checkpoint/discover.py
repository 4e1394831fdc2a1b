"""Which files of a directory are the model's weights, and which are left alone."""

import fnmatch
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.checkpoint import sidecars
from weightsmith.checkpoint.instead import known_instead
from weightsmith.errors import (
    AdapterNotMergeable,
    NoAdapter,
    NoWeights,
    ShardMissing,
    SourceFault,
)
from weightsmith.formats.index import Index, parse_index
from weightsmith.formats.safetensors_header import MAX_HEADER_NBYTES

INDEXES: Final = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
"""In order of preference: where both formats lie there, safetensors."""
WEIGHTS: Final = ("model*.safetensors", "pytorch_model*.bin")
"""The weight files of each format where there is no index, in the same order."""
ADAPTER_CONFIG: Final = "adapter_config.json"
ADAPTER_WEIGHTS: Final = ("adapter_model.safetensors", "adapter_model.bin")
"""The one weight file of an adapter by format, in the same order."""
LLAVA_EXTRA: Final = "non_lora_trainables.bin"
"""Whole tensors that LLaVA's training keeps beside its adapters."""
DELTA_INDEX: Final = "delta.safetensors.index.json"
"""What an exact delta has instead of weights; no loader knows it."""
MANIFEST: Final = "weightsmith.json"
"""The record inside an output of ours."""
LOOKS_LIKE_WEIGHTS: Final = (
    "*.safetensors",
    "*.bin",
    "*.pt",
    "*.pth",
    "*.gguf",
    "*.msgpack",
    "*.h5",
)

_LOOKED_INTO: Final = 100
"""Directories in which weights are looked for where there are none."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a directory holds, by file name."""

    weights: tuple[str, ...]
    """Weight files in the order of their numbers."""
    index: Index | None
    index_name: str | None
    sidecars: tuple[str, ...]
    left: tuple[str, ...]
    """Files that look like weights and were not taken, and directories (with ``/``) not entered."""


def discover(directory: Path, elsewhere: Iterable[str] = ()) -> Found:
    """Choose the weight files and sidecars of a directory by name alone.

    Files named `elsewhere` count as if they were there: a store brings them when they are read.
    Raises: SourceNotFound, SourceUnreadable, NoWeights, ShardMissing; JsonInvalid, IndexInvalid,
    IndexEscapes for the index.
    """
    files, directories = list_directory(directory)
    files = sorted({*files, *elsewhere})
    for index_name, pattern in zip(INDEXES, WEIGHTS, strict=True):
        index = None
        if index_name in files:
            index_path = directory / index_name
            index = parse_index(fs.read_small(index_path, MAX_HEADER_NBYTES), index_path)
            weights = tuple(dict.fromkeys(index.weight_map.values()))
            _require_present(index_path, weights, files)
        else:
            weights = tuple(name for name in files if fnmatch.fnmatchcase(name, pattern))
            _require_all_numbers(directory, weights)
        if weights:
            break
    else:
        raise _no_weights(directory, files, directories)
    taken = set(weights)
    left = [name for name in files if _looks_like_weights(name) and name not in taken]
    return Found(
        weights=tuple(sorted(weights)),
        index=index,
        index_name=index_name if index is not None else None,
        sidecars=tuple(name for name in files if sidecars.is_sidecar(name)),
        left=(*left, *(f"{name}/" for name in directories)),
    )


def discover_adapter(directory: Path, elsewhere: Iterable[str] = ()) -> Found:
    """Choose the weight file and sidecars of an adapter's directory by name alone.

    Files named `elsewhere` count as if they were there.
    Raises: SourceNotFound, SourceUnreadable, NoAdapter, AdapterNotMergeable.
    """
    files, directories = list_directory(directory)
    files = sorted({*files, *elsewhere})
    weights = [name for name in ADAPTER_WEIGHTS if name in files][:1]
    if not weights or ADAPTER_CONFIG not in files:
        context = [f"found {name}" for name in (ADAPTER_CONFIG, *ADAPTER_WEIGHTS) if name in files]
        raise NoAdapter(source=directory, context=context)
    if LLAVA_EXTRA in files:
        hint = "merge it with LLaVA's own scripts/merge_lora_weights.py"
        raise AdapterNotMergeable(adapter=directory, feature=LLAVA_EXTRA, hint=hint)
    left = [name for name in files if _looks_like_weights(name) and name not in weights]
    return Found(
        weights=tuple(weights),
        index=None,
        index_name=None,
        sidecars=(ADAPTER_CONFIG, *(name for name in files if sidecars.is_sidecar(name))),
        left=(*left, *(f"{name}/" for name in directories)),
    )


def discover_delta(directory: Path, elsewhere: Iterable[str] = ()) -> Found:
    """Choose the payload files and sidecars of an exact delta's directory by name alone.

    Files named `elsewhere` count as if they were there.
    Raises: SourceNotFound, SourceUnreadable, ShardMissing; JsonInvalid, IndexInvalid, IndexEscapes
    for the index.
    """
    files, directories = list_directory(directory)
    files = sorted({*files, *elsewhere})
    path = directory / DELTA_INDEX
    index = parse_index(fs.read_small(path, MAX_HEADER_NBYTES), path, may_be_empty=True)
    payloads = tuple(sorted({*index.weight_map.values()}))
    _require_present(path, payloads, files)
    left = [name for name in files if _looks_like_weights(name) and name not in payloads]
    return Found(
        weights=payloads,
        index=index,
        index_name=DELTA_INDEX,
        sidecars=tuple(name for name in files if sidecars.is_sidecar(name)),
        left=(*left, *(f"{name}/" for name in directories)),
    )


def list_directory(directory: Path) -> tuple[list[str], list[str]]:
    """Names of the files and of the directories in a directory, each sorted; without hidden
    directories, where tools keep what is theirs.

    Raises: SourceNotFound, SourceUnreadable.
    """
    files: list[str] = []
    directories: list[str] = []
    with fs.translated_read_errors(directory), os.scandir(directory) as entries:
        for entry in entries:
            if not _is_directory(entry):
                files.append(entry.name)
            elif not entry.name.startswith("."):
                directories.append(entry.name)
    return sorted(files), sorted(directories)


def _no_weights(directory: Path, files: list[str], directories: list[str]) -> NoWeights:
    """The error for a directory without weights, with what lies there instead."""
    found = [f"found {name}" for name in files if _looks_like_weights(name)]
    instead = known_instead((*files, *directories), directory)
    if instead is not None:
        what, way = instead
        return NoWeights(source=directory, context=[what, *found], hint=way)
    below = [name for name in directories[:_LOOKED_INTO] if _holds_weights(directory / name)]
    found += [f"found weights in {name}/" for name in below]
    hint = f"give the directory that holds them: {directory / below[0]}" if below else None
    return NoWeights(source=directory, context=found, hint=hint)


def _holds_weights(directory: Path) -> bool:
    try:
        names, _ = list_directory(directory)
    except SourceFault:
        return False
    return any(fnmatch.filter(names, pattern) for pattern in (*WEIGHTS, "consolidated.*.pth"))


def _is_directory(entry: os.DirEntry[str]) -> bool:
    """Where a link cannot be followed (a loop, no permission), a file, which nobody may want."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _looks_like_weights(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in LOOKS_LIKE_WEIGHTS)


def _require_present(index_path: Path, weights: tuple[str, ...], files: list[str]) -> None:
    missing = sorted(set(weights) - set(files))
    if missing:
        raise ShardMissing(index=index_path, count=len(missing), context=missing)


def _require_all_numbers(directory: Path, weights: tuple[str, ...]) -> None:
    """Without an index, the file names alone tell that a shard is missing.

    Sets are numbered 1 to N, 0 to N - 1, or, as decapoda's 13B is, 0 to N "of N".
    """
    numbers = defaultdict(set)
    for name in weights:
        if match := re.fullmatch(r"(.*?)-?(\d{5})-of-(\d{5})(\..*)", name):
            numbers[match[1], match[3], match[4]].add(int(match[2]))
    for (stem, total, suffix), present in numbers.items():
        first = 0 if 0 in present else 1
        last = max(int(total) - (1 - first), *present)
        if missing := sorted(set(range(first, last + 1)) - present):
            names = [f"{stem}-{number:05d}-of-{total}{suffix}" for number in missing]
            raise ShardMissing(
                index=f"the numbering in {directory}", count=len(names), context=names
            )

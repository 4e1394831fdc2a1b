"""Choose which files of a directory are the model's weights and sidecars."""

import contextlib
import fnmatch
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.checkpoint import sidecars
from weightsmith.checkpoint.layout import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    MANIFEST,
    WEIGHTS,
    LayoutKind,
    layout_of,
    looks_like_weights,
)
from weightsmith.errors import (
    AdapterNotMergeable,
    NoAdapter,
    NoWeights,
    ShardMissing,
    SourceFault,
)
from weightsmith.formats.index import Index
from weightsmith.formats.safetensors_header import MAX_HEADER_NBYTES

LLAVA_EXTRA: Final = "non_lora_trainables.bin"
"""Whole tensors that LLaVA's training keeps beside its adapters."""
_INSTEAD: Final = (
    (
        ("adapter_config.json", "adapter_model.*"),
        "it holds a LoRA adapter, which is no model without its base",
        "merge it into its base: weightsmith merge-lora --base SOURCE --lora {source} --target DIR",
    ),
    (
        ("delta.safetensors.index.json",),
        "it holds an exact delta, which is no model without its base",
        "apply it to its base: weightsmith apply-delta --base SOURCE --delta {source}",
    ),
    (
        ("consolidated.safetensors", "consolidated-*.safetensors"),
        "it holds Mistral's own layout (consolidated.safetensors and its params.json)",
        "take the model in Hugging Face's layout, which Mistral publishes beside it",
    ),
    (
        ("consolidated.*.pth",),
        "it holds Meta's weights without their params.json",
        "copy params.json there; it lies beside the weights in Meta's download",
    ),
    (
        ("params.json",),
        "it holds Meta's params.json without the weights",
        "copy all consolidated.NN.pth files there; they lie beside it in Meta's download",
    ),
    (
        ("*.gguf", "ggml-*.bin", "*.ggml*.bin"),
        "it holds GGUF or GGML files, made for other programs and rounded as a rule",
        "take the model that they were made from, in safetensors or .bin files",
    ),
    (
        ("zero_to_fp32.py", "global_step*", "*_optim_states.pt"),
        "it holds what a DeepSpeed run leaves, without the states of a step",
        "copy the *_model_states.pt and *_optim_states.pt files of all processes there",
    ),
    (
        ("pytorch_model_fsdp_*", "*.distcp", ".metadata"),
        "it holds what an FSDP run leaves, without all that belongs to one save",
        "copy .metadata and the files of all processes there",
    ),
    (
        ("tf_model*.h5", "flax_model*.msgpack"),
        "it holds weights for TensorFlow or Flax alone",
        "take a copy of the model in safetensors or .bin files",
    ),
)
"""What a directory without a model's weights may hold instead: names of files or directories, what
they mean, and what to do then.
"""

_LOOKED_INTO: Final = 100
"""Most directories inside one without weights that are searched for some."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a directory holds, by file name."""

    weights: tuple[str, ...]
    """Weight files in the order of their numbers."""
    index: Index | None
    index_name: str | None
    sidecars: tuple[str, ...]
    """Files beside them that belong to the model, those of subfolders with their path."""
    left: tuple[str, ...]
    """All that was not taken; directories that were not entered with ``/``."""
    large: Mapping[str, int] = field(default_factory=dict)
    """Files that would be sidecars but are too large to be taken unasked, with sizes in bytes."""


def discover(
    directory: Path, elsewhere: Iterable[str] = (), *, kind: LayoutKind = "huggingface"
) -> Found:
    """Choose the weight files and sidecars of a model by name alone, or of what else is asked for.

    Files named `elsewhere` count as if they were there: a store brings them when they are read.
    Raises: SourceNotFound, SourceUnreadable, ShardMissing; NoWeights, NoAdapter,
    AdapterNotMergeable; JsonInvalid, IndexInvalid, IndexEscapes for the index.
    """
    files, directories = list_directory(directory, hidden=True)
    files = sorted({*files, *elsewhere})
    layout = layout_of(files, kinds=(kind,))
    if layout is None:
        raise _no_adapter(directory, files) if kind == "adapter" else no_weights(directory)
    weights, index = layout.weights(
        lambda name: fs.read_small(directory / name, MAX_HEADER_NBYTES), directory
    )
    if index is not None:
        _require_present(directory / layout.index_name, weights, files)
    elif kind == "adapter":
        if LLAVA_EXTRA in files:
            hint = "merge it with LLaVA's own scripts/merge_lora_weights.py"
            raise AdapterNotMergeable(adapter=directory, feature=LLAVA_EXTRA, hint=hint)
    else:
        _require_all_numbers(directory, weights)
    taken = {*weights, layout.index_name, MANIFEST}
    beside = sizes_beside(directory, files, directories)
    own = {name for name in beside if name not in taken and _belongs(name, kind)}
    # A config of any size is looked into, and refused; it is never left unread.
    sizes = {name: beside[name] for name in sorted(own) if name != sidecars.CONFIG[0]}
    large = {name: nbytes for name, nbytes in sizes.items() if nbytes > sidecars.LARGE_NBYTES}
    left = sorted(beside.keys() - own - taken)
    return Found(
        weights=tuple(weights),
        index=index,
        index_name=layout.index_name or None,
        sidecars=tuple(sorted(own - large.keys())),
        left=(*left, *(f"{n}/" for n in directories if not sidecars.is_sidecar_folder(n))),
        large=large,
    )


def _belongs(name: str, kind: LayoutKind) -> bool:
    """Whether a file beside the weights is one of the model's; all that lies beside a delta is its
    target's, which somebody chose.
    """
    if kind == "exact-delta":
        at_top = "/" not in name and looks_like_weights(name)
        return name.isprintable() and not name.startswith(".") and not at_top
    return sidecars.is_sidecar(name) or (kind == "adapter" and name == ADAPTER_CONFIG)


def sizes_beside(
    directory: Path, files: Iterable[str], directories: Iterable[str]
) -> dict[str, int]:
    """Size by name of all files of a folder, and, by path, of those in subfolders of known layouts.

    The size is 0 where a name leads to no file, as a broken link does.
    """
    found = dict.fromkeys(files, 0)
    for name in directories:
        if sidecars.is_sidecar_folder(name):
            found |= {
                path.relative_to(directory).as_posix(): 0
                for path in sorted((directory / name).rglob("*"))
                if not path.is_dir()
            }
    for name in found:
        with contextlib.suppress(OSError):
            found[name] = (directory / name).stat().st_size
    return found


def list_directory(directory: Path, *, hidden: bool = False) -> tuple[list[str], list[str]]:
    """Names of the files and of the directories in a directory, each sorted; `hidden` directories,
    where tools keep what is theirs, only where they are asked for.

    Raises: SourceNotFound, SourceUnreadable.
    """
    files: list[str] = []
    directories: list[str] = []
    with fs.translated_read_errors(directory), os.scandir(directory) as entries:
        for entry in entries:
            if not _is_directory(entry):
                files.append(entry.name)
            elif hidden or not entry.name.startswith("."):
                directories.append(entry.name)
    return sorted(files), sorted(directories)


def _no_adapter(directory: Path, files: list[str]) -> NoAdapter:
    """The error for a directory without an adapter, or without one half of it."""
    context = [f"found {name}" for name in (ADAPTER_CONFIG, *ADAPTER_WEIGHTS) if name in files]
    return NoAdapter(source=directory, context=context)


def no_weights(directory: Path) -> NoWeights:
    """The error for a directory without a model's weights, with what lies there instead.

    Raises: SourceNotFound, SourceUnreadable.
    """
    files, directories = list_directory(directory)
    found = [f"found {name}" for name in files if looks_like_weights(name)]
    instead = _known_instead((*files, *directories), directory)
    if instead is not None:
        what, way = instead
        return NoWeights(source=directory, context=[what, *found], hint=way)
    below = [name for name in directories[:_LOOKED_INTO] if _holds_weights(directory / name)]
    found += [f"found weights in {name}/" for name in below]
    hint = f"give the directory that holds them: {directory / below[0]}" if below else None
    return NoWeights(source=directory, context=found, hint=hint)


def _known_instead(names: Iterable[str], source: object) -> tuple[str, str] | None:
    """What these files and directories are, and a hint; None if that is not known."""
    there = list(names)
    for patterns, what, hint in _INSTEAD:
        if any(fnmatch.filter(there, pattern) for pattern in patterns):
            return what, hint.format(source=source)
    return None


def _holds_weights(directory: Path) -> bool:
    try:
        names, _ = list_directory(directory)
    except SourceFault:
        return False
    return any(fnmatch.filter(names, pattern) for pattern in (*WEIGHTS, "consolidated.*.pth"))


def _is_directory(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a directory; a link that cannot be followed (a loop, no permission) is
    taken for a file, which may not be needed.
    """
    try:
        return entry.is_dir()
    except OSError:
        return False


def _require_present(index_path: Path, weights: Iterable[str], files: list[str]) -> None:
    missing = sorted(set(weights) - set(files))
    if missing:
        raise ShardMissing(index=index_path, count=len(missing), context=missing)


def _require_all_numbers(directory: Path, weights: Iterable[str]) -> None:
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

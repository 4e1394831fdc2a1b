"""Which files of a repository a command needs: one weight format, its sidecars, nothing else."""

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from weightsmith.checkpoint import sidecars
from weightsmith.checkpoint.discover import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    DELTA_INDEX,
    INDEXES,
    LOOKS_LIKE_WEIGHTS,
    MANIFEST,
    WEIGHTS,
)
from weightsmith.errors import NoWeights, OnlyAdapter, OnlyGguf, ShardMissing
from weightsmith.formats.index import parse_index
from weightsmith.hub.listing import Listing, RepoFile
from weightsmith.hub.translate_errors import page_of

WeightFormat = Literal["auto", "safetensors", "bin"]
Kind = Literal["model", "adapter"]

FORMATS: Final = ("safetensors", "bin")
"""In order of preference, as `INDEXES` and `WEIGHTS` are."""
META_WEIGHTS: Final = "consolidated.*.pth"
META_SIDECARS: Final = ("params.json", "checklist.chk")


@dataclass(frozen=True, slots=True)
class Selection:
    """The files to fetch, and what was left."""

    format: str
    """``safetensors``, ``bin``, or ``pth`` for Meta's own layout."""
    files: tuple[RepoFile, ...]
    """Small ones first, then the weights by name."""
    left: tuple[RepoFile, ...]
    """Files that look like weights and were not taken."""


def select_files(
    listing: Listing,
    read: Callable[[RepoFile], bytes],
    *,
    weights: WeightFormat = "auto",
    kind: Kind = "model",
) -> Selection:
    """Choose by name alone, as for a local directory; `read` is asked for the index, if any.

    Only files at the repository's top count: ``original/``, ``checkpoint-*`` and the like are left.
    Raises: NoWeights, OnlyGguf, OnlyAdapter; ShardMissing, IndexInvalid, IndexEscapes and
    JsonInvalid for the index; what `read` raises.
    """
    top = {file.name: file for file in listing.files if "/" not in file.name}
    adapter = kind == "adapter"
    chosen = _adapter(listing, top) if adapter else _model(listing, top, read, weights)
    taken = set(chosen.names)
    extra = [name for name in top if sidecars.is_sidecar(name) or name in chosen.also]
    small = sorted(set(extra) - taken)
    return Selection(
        format=chosen.format,
        files=tuple(top[name] for name in (*small, *chosen.names)),
        left=tuple(
            file
            for file in listing.files
            if file.name not in taken and sidecars.matches(file.name, LOOKS_LIKE_WEIGHTS)
        ),
    )


@dataclass(frozen=True, slots=True)
class _Chosen:
    format: str
    names: tuple[str, ...]
    also: tuple[str, ...] = ()


def _model(
    listing: Listing,
    top: dict[str, RepoFile],
    read: Callable[[RepoFile], bytes],
    weights: WeightFormat,
) -> _Chosen:
    for format_, index_name, pattern in zip(FORMATS, INDEXES, WEIGHTS, strict=True):
        if weights not in {"auto", format_}:
            continue
        if index_name in top:
            names = _indexed(listing, top, read, index_name)
            return _Chosen(format_, names, also=(index_name, MANIFEST))
        if names := tuple(sorted(fnmatch.filter(top, pattern))):
            return _Chosen(format_, names, also=(MANIFEST,))
    if weights != "bin" and DELTA_INDEX in top:
        names = _indexed(listing, top, read, DELTA_INDEX)
        return _Chosen("safetensors", names, also=(DELTA_INDEX, MANIFEST))
    if weights == "auto" and (names := tuple(sorted(fnmatch.filter(top, META_WEIGHTS)))):
        return _Chosen("pth", names, also=META_SIDECARS)
    raise _nothing(listing, top, weights)


def _indexed(
    listing: Listing,
    top: dict[str, RepoFile],
    read: Callable[[RepoFile], bytes],
    index_name: str,
) -> tuple[str, ...]:
    """The files that an index names, all of which must be there.

    Raises: ShardMissing.
    """
    may_be_empty = index_name == DELTA_INDEX
    index = parse_index(read(top[index_name]), Path(index_name), may_be_empty=may_be_empty)
    names = tuple(sorted(set(index.weight_map.values())))
    if missing := [name for name in names if name not in top]:
        where = f"{index_name} of {listing.repo_id}"
        hint = f"the repository is not complete: {page_of(listing.repo_id)}"
        raise ShardMissing(index=where, count=len(missing), context=missing, hint=hint)
    return names


def _adapter(listing: Listing, top: dict[str, RepoFile]) -> _Chosen:
    for format_, name in zip(FORMATS, ADAPTER_WEIGHTS, strict=True):
        if name in top and ADAPTER_CONFIG in top:
            return _Chosen(format_, (name,), also=(ADAPTER_CONFIG,))
    hint = f"expected {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS[0]} there"
    raise NoWeights(source=listing.repo_id, hint=hint)


def _nothing(
    listing: Listing, top: dict[str, RepoFile], weights: WeightFormat
) -> NoWeights | OnlyAdapter | OnlyGguf:
    repo = listing.repo_id
    like_weights = [file.name for file in listing.files]
    like_weights = [name for name in like_weights if sidecars.matches(name, LOOKS_LIKE_WEIGHTS)]
    if any(name in top for name in ADAPTER_WEIGHTS):
        return OnlyAdapter(repo=repo)
    if like_weights and all(name.endswith(".gguf") for name in like_weights):
        return OnlyGguf(repo=repo, page=page_of(repo))
    found = [f"found {name}" for name in like_weights]
    if weights != "auto":
        hint = "leave out --format, or ask for the other one"
        return NoWeights(source=f"{repo} as {weights}", context=found, hint=hint)
    return NoWeights(source=repo, context=found)

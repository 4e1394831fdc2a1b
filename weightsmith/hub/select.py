"""Which files of a repository a command needs: one weight format, its sidecars, nothing else."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from weightsmith.checkpoint import sidecars
from weightsmith.checkpoint.layout import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    FORMATS,
    LayoutKind,
    layout_of,
    looks_like_weights,
)
from weightsmith.checkpoint.training_names import is_rank_file, told_by_paths
from weightsmith.errors import NoWeights, OnlyAdapter, OnlyGguf, OnlyTraining, ShardMissing
from weightsmith.hub.listing import Listing, RepoFile
from weightsmith.hub.translate_errors import page_of

WeightFormat = Literal["auto", "safetensors", "bin"]
Wanted = Literal["model", "adapter"]

_VERSION: Final = re.compile(r"weight_v\d+/model[^/]*\.(?:safetensors|safetensors\.index\.json)")
"""A file of a version that a training run publishes (`sources.disk_delta`)."""
_MODELS: Final[tuple[LayoutKind, ...]] = ("exact-delta", "huggingface", "meta")


@dataclass(frozen=True, slots=True)
class Selection:
    """The files to fetch, and what was left."""

    format: str
    """``safetensors``, ``bin``, ``pth`` for Meta's own layout, or ``versions``."""
    files: tuple[RepoFile, ...]
    """Small ones first, then the weights by name."""
    left: tuple[RepoFile, ...]
    """Files that look like weights and were not taken."""


def select_files(
    listing: Listing,
    read: Callable[[RepoFile], bytes],
    *,
    weights: WeightFormat = "auto",
    kind: Wanted = "model",
) -> Selection:
    """Choose by name alone, as for a local directory; `read` is asked for the index, if any.

    Where there is no model, the versions of one by a training run count, all of them.
    Weights count at the repository's top only: ``original/``, ``checkpoint-*`` and the like are
    left. Other files also in the subfolders of layouts that are known.
    Raises: NoWeights, OnlyGguf, OnlyAdapter, OnlyTraining; ShardMissing, IndexInvalid, IndexEscapes
    and JsonInvalid for the index; what `read` raises.
    """
    top = {file.name: file for file in listing.files if "/" not in file.name}
    layout = layout_of(
        [name for name in top if not is_rank_file(name)],
        kinds=("adapter",) if kind == "adapter" else _MODELS,
        formats=FORMATS if weights == "auto" else (weights,),
    )
    versions = sorted(file.name for file in listing.files if _VERSION.fullmatch(file.name))
    if layout is None and versions and kind == "model" and weights != "bin":
        by_name = {file.name: file for file in listing.files}
        versions.sort(key=lambda name: not name.endswith(".json"))
        return Selection("versions", tuple(by_name[name] for name in versions), ())
    if layout is None or (layout.kind == "meta" and weights != "auto"):
        raise _nothing(listing, top, weights, kind)
    names, index = layout.weights(lambda name: read(top[name]), Path())
    if index is not None and (missing := [name for name in names if name not in top]):
        where = f"{layout.index_name} of {listing.repo_id}"
        hint = f"the repository is not complete: {page_of(listing.repo_id)}"
        raise ShardMissing(index=where, count=len(missing), context=missing, hint=hint)
    taken = set(names)
    small = {file.name: file for file in listing.files if sidecars.is_sidecar(file.name)}
    small |= {name: top[name] for name in layout.also if name in top}
    extra = sorted(small.keys() - taken)
    return Selection(
        format=layout.format,
        files=(*(small[name] for name in extra), *(top[name] for name in names)),
        left=tuple(
            file
            for file in listing.files
            if file.name not in taken | small.keys() and looks_like_weights(file.name)
        ),
    )


def _nothing(
    listing: Listing, top: dict[str, RepoFile], weights: WeightFormat, kind: Wanted
) -> NoWeights | OnlyAdapter | OnlyGguf | OnlyTraining:
    repo = listing.repo_id
    if kind == "adapter":
        hint = f"expected {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS[0]} there"
        return NoWeights(source=repo, hint=hint)
    like_weights = [file.name for file in listing.files if looks_like_weights(file.name)]
    if any(name in top for name in ADAPTER_WEIGHTS):
        return OnlyAdapter(repo=repo)
    if (what := told_by_paths(file.name for file in listing.files)) is not None:
        return OnlyTraining(repo=repo, what=what)
    if like_weights and all(name.endswith(".gguf") for name in like_weights):
        return OnlyGguf(repo=repo, page=page_of(repo))
    found = [f"found {name}" for name in like_weights]
    if weights != "auto":
        hint = "leave out `weights`, or ask for the other one"
        return NoWeights(source=f"{repo} as {weights}", context=found, hint=hint)
    return NoWeights(source=repo, context=found)

"""Delete from the hub's cache through the hub library, which knows about shared blobs."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def delete_files(
    cache: Path,
    *,
    links: Iterable[Path] = (),
    blobs: Iterable[Path] = (),
    repos: Iterable[Path] = (),
) -> None:
    """Delete links of snapshots, then blobs, and whole repositories; a shared blob's bytes go with
    the last link to it.
    """
    from huggingface_hub import DeleteCacheStrategy

    fields = {field.name for field in dataclasses.fields(DeleteCacheStrategy)}
    shared: dict[str, Any] = {"cache_dir": cache} if "cache_dir" in fields else {}
    DeleteCacheStrategy(
        expected_freed_size=0,
        # Links go first, under the heading that every version of the library deletes before blobs.
        snapshots=frozenset(links),
        blobs=frozenset(blobs),
        refs=frozenset(),
        repos=frozenset(repos),
        **shared,
    ).execute()

"""A hub library's cache, written by hand."""

import hashlib
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import scan_cache_dir

from tests.support.hub.server import etag, git_sha1
from weightsmith.ops.clean_cache import CleanPlan, carry_out, plan_clean_cache

DAY = 86_400.0


@dataclass
class Maker:
    """Writes a cache as the hub library lays it out, with times of our choosing."""

    root: Path
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    now: float = field(default_factory=lambda: time.time() - 60)
    """A minute ago, so that no clock that is set back makes a day less of it."""

    def raw(self, nbytes: int) -> bytes:
        return self.rng.randbytes(nbytes)

    def revision(
        self,
        repo_id: str,
        files: Mapping[str, bytes],
        *,
        ref: str = "",
        used: float = 1,
        modified: float | None = None,
        kind: str = "models",
    ) -> str:
        """A revision of these files, last used and modified so many days ago; its commit."""
        repo = self.root / f"{kind}--{repo_id.replace('/', '--')}"
        commit = git_sha1(repr((repo_id, sorted(files.items()))).encode())
        for name, raw in files.items():
            blob = repo / "blobs" / etag(name, raw)
            link = repo / "snapshots" / commit / name
            for path in (blob, link):
                path.parent.mkdir(parents=True, exist_ok=True)
            if not blob.exists():
                blob.write_bytes(raw)
            link.symlink_to(os.path.relpath(blob, link.parent))
            days = used + 1 if modified is None else modified
            os.utime(blob, (self.now - used * DAY, self.now - days * DAY))
        if ref:
            (repo / "refs").mkdir(exist_ok=True)
            (repo / "refs" / ref).write_text(commit)
        return commit

    def leftover(self, repo_id: str, name: str, nbytes: int, *, days: float = 2) -> Path:
        """A file in a repository's blobs that nothing points at."""
        path = self.root / f"models--{repo_id.replace('/', '--')}" / "blobs" / name
        path.write_bytes(self.raw(nbytes))
        os.utime(path, (self.now - days * DAY,) * 2)
        return path

    def share(self, repo_id: str, name: str, raw: bytes) -> Path:
        """Move a blob into the store that repositories share, as a download from Xet does."""
        blob = self.root / f"models--{repo_id.replace('/', '--')}" / "blobs" / etag(name, raw)
        stat = blob.stat()
        xet_hash = hashlib.sha256(b"xet" + raw).hexdigest()
        shared_blobs = pytest.importorskip(
            "huggingface_hub.utils._shared_blobs", reason="since 2.0"
        )
        assert shared_blobs.publish_blob_to_shared_store(
            blob_path=str(blob), xet_hash=xet_hash, cache_dir=self.root, expected_size=len(raw)
        )
        store = self.root / "blobs" / xet_hash[:2] / xet_hash
        os.utime(store, (stat.st_atime, stat.st_mtime))
        return store

    def plan(self, *sources: str, **options: Any) -> CleanPlan:
        return plan_clean_cache(*sources, cache=self.root, **options)

    def clean(self, *sources: str, **options: Any) -> int:
        """Clean, and hold the plan to its word; bytes that were freed."""
        plan = self.plan(*sources, **options)
        before = self.on_disk()
        cleaned = carry_out(plan)
        assert before - self.on_disk() == cleaned.freed_nbytes == plan.freed_nbytes
        self.assert_sound()
        return cleaned.freed_nbytes

    def on_disk(self) -> int:
        """Bytes of weights and the like, each file counted once, bookkeeping not at all."""
        own = ("refs", "CACHEDIR.TAG", ".lock", ".refs", ".huggingface-shared-blobs")
        files = (path for path in self.root.rglob("*") if path.is_file() and not path.is_symlink())
        return sum(
            path.stat().st_size
            for path in files
            if not path.name.endswith(own) and path.parent.name not in {"refs", "weightsmith-pins"}
        )

    def assert_sound(self) -> None:
        """The hub library has no complaint, and every link leads somewhere."""
        assert scan_cache_dir(self.root).warnings == []
        assert all(path.exists() for path in self.root.rglob("*") if path.is_symlink())

    def left(self) -> set[str]:
        """``org/name@commit`` of what is there."""
        return {
            f"{repo.repo_id}@{revision.commit_hash}"
            for repo in scan_cache_dir(self.root).repos
            for revision in repo.revisions
        }

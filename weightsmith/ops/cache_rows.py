"""The hub's cache as rows of a table, each of which can be deleted by itself."""

import dataclasses
import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from weightsmith.hub.cache import Cache, CachedFile, CachedRevision, Leftover
from weightsmith.hub.pins import Commit, Pins
from weightsmith.hub.resolve import HubSource

_NUMBERED: Final = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")


@dataclass(frozen=True, slots=True)
class Uncovered:
    """A file of a cached model that a delta does not rebuild."""

    file: str
    why: str


@dataclass(frozen=True, slots=True)
class Row:
    """Something that can be deleted by itself, and whether it is to be."""

    kind: Literal["revision", "duplicates", "incomplete", "unreferenced", "broken"]
    repo: str
    """``org/name``; ``dataset/org/name`` and the like for what is no model; empty if shared."""
    revision: str
    refs: tuple[str, ...]
    nbytes: int
    used: float | None
    """Seconds since 1970; None where it is not known."""
    modified: float
    revisions: frozenset[CachedRevision] = frozenset()
    links: frozenset[Path] = frozenset()
    leftovers: frozenset[Leftover] = frozenset()
    remove: bool = False
    reason: str = ""
    locked: bool = False
    """Whether it stays even if it is chosen."""
    pinned: bool = False
    """Whether it stays because a model that was removed is rebuilt from it."""
    uncovered: tuple[Uncovered, ...] = ()
    """The files that the delta which could rebuild it does not rebuild; empty if it is covered."""

    @property
    def id(self) -> str:
        """The name by which a person or a script selects it."""
        name = f"{self.repo or 'shared'}@{self.revision[:12]}" if self.revision else self.repo
        return name if self.kind == "revision" else f"{name or 'shared'}:{self.kind}"

    def to_document(self) -> dict[str, Any]:
        """What the table shows."""
        return {
            "id": self.id,
            "kind": self.kind,
            "repo": self.repo,
            "revision": self.revision,
            "refs": list(self.refs),
            "nbytes": self.nbytes,
            "used": self.used,
            "modified": self.modified,
            "remove": self.remove,
            "reason": self.reason,
            "uncovered": [dataclasses.asdict(each) for each in self.uncovered],
        }


def rows_of(cache: Cache, pins: Pins, *, used_known: bool) -> list[Row]:
    """All that could be deleted, by repository; what is being downloaded, or pinned, is locked, and
    so is what lies outside the cache.
    """
    busy = {(item.repo_type, item.repo_id) for item in cache.leftovers if item.busy}
    rows = []
    for revision in cache.revisions:
        downloading = (revision.repo_type, revision.repo_id) in busy
        pinned = "" if downloading else why_pinned(revision, pins)
        why = "being downloaded" if downloading else pinned or _why_outside(revision)
        row = Row(
            kind="revision",
            repo=_name(revision.repo_type, revision.repo_id),
            revision=revision.commit,
            refs=revision.refs,
            nbytes=revision.nbytes,
            used=revision.used if used_known else None,
            modified=revision.modified,
            revisions=frozenset({revision}),
            locked=bool(why),
            pinned=bool(pinned),
            reason=f"kept: {why}" if why else "",
        )
        rows.append(row)
        if twice := _duplicates(revision.files):
            rows.append(
                dataclasses.replace(
                    row,
                    kind="duplicates",
                    nbytes=sum(file.nbytes for file in twice),
                    revisions=frozenset(),
                    links=frozenset(file.link for file in twice),
                )
            )
    groups: dict[tuple[str, str, str, bool], list[Leftover]] = {}
    for item in cache.leftovers:
        groups.setdefault((item.repo_type, item.repo_id, item.kind, item.busy), []).append(item)
    for (repo_type, repo_id, _, downloading), items in groups.items():
        why = "being downloaded" if downloading else _why_pinned_whole(items, pins)
        rows.append(
            Row(
                kind=items[0].kind,
                repo=_name(repo_type, repo_id),
                revision="",
                refs=(),
                nbytes=sum(item.nbytes for item in items),
                used=None,
                modified=max(item.modified for item in items),
                leftovers=frozenset(items),
                locked=bool(why),
                pinned=bool(why) and not downloading,
                reason=f"kept: {why}" if why else "",
            )
        )
    return sorted(rows, key=lambda row: (row.repo, row.revision, row.kind))


def _duplicates(files: Iterable[CachedFile]) -> list[CachedFile]:
    """The ``.bin`` weights of a revision that holds all its safetensors too, judged by name.

    The index is not read: that would count as using the revision.
    """
    by_name = {file.name: file for file in files}
    numbered = [match for name in by_name if (match := _NUMBERED.fullmatch(name))]
    whole = bool(numbered) and all(len(numbered) == int(match[2]) for match in numbered)
    if not whole and "model.safetensors" not in by_name:
        return []
    return [by_name[name] for name in fnmatch.filter(by_name, "pytorch_model*.bin*")]


def why_pinned(revision: CachedRevision, pins: Pins) -> str:
    """Why a revision is still needed, as a clause; empty if it is not."""
    if revision.repo_type != "model":
        return ""
    return pins.why_kept(Commit(revision.repo_id, "").folder, revision.commit)


def _why_outside(revision: CachedRevision) -> str:
    """Which of its files lies elsewhere, as a clause; empty where none does."""
    if not revision.outside:
        return ""
    first, *more = revision.outside
    others = f" and {len(more)} more" if more else ""
    return f"{first}{others} outside the cache"


def _why_pinned_whole(leftovers: Iterable[Leftover], pins: Pins) -> str:
    """The same for a repository that would go as a whole."""
    reasons = (pins.why_kept(each.path.name) for each in leftovers if each.path.is_dir())
    return next(filter(None, reasons), "")


def _name(repo_type: str, repo_id: str) -> str:
    return repo_id if repo_type in {"", "model"} else f"{repo_type}/{repo_id}"


def is_named(row: Row, source: HubSource) -> bool:
    """Whether a source names this row: its repository, and its revision where there is one."""
    if row.repo.casefold() not in {home.casefold() for home in source.homes}:
        return False
    if source.revision is None:
        return True
    by_commit = len(source.revision) >= 7 and row.revision.startswith(source.revision)
    return source.revision in row.refs or by_commit


def newest_ids(rows: Iterable[Row], count: int) -> set[str]:
    """Ids of the newest revisions of each repository; one that a branch stands at counts first."""
    by_repo: dict[str, list[Row]] = {}
    for row in rows:
        if row.kind == "revision":
            by_repo.setdefault(row.repo, []).append(row)
    newest: set[str] = set()
    for group in by_repo.values():
        group.sort(key=lambda row: (bool(row.refs), row.modified, row.revision), reverse=True)
        newest |= {row.id for row in group[:count]}
    return newest


def targets_of(
    rows: Iterable[Row],
) -> tuple[set[CachedRevision], set[Path], set[Leftover]]:
    """What deleting these rows means: revisions, links of others, leftovers."""
    revisions: set[CachedRevision] = set()
    links: set[Path] = set()
    leftovers: set[Leftover] = set()
    for row in rows:
        revisions |= row.revisions
        links |= row.links
        leftovers |= row.leftovers
    return revisions, links, leftovers

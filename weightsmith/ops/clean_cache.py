"""Make room in the hub's cache: plan what to delete and why, then delete exactly that."""

import fnmatch
import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from weightsmith.engine.options import Options
from weightsmith.errors import CacheChanged, LastUsedUnknown, NotInCache, TargetUnwritable
from weightsmith.hub.cache import Cache, delete, freed_nbytes, scan
from weightsmith.hub.connection import connect
from weightsmith.hub.pins import Pins, cleaning, remove_pins, write_pin
from weightsmith.hub.resolve import HubSource, parse_hub_source
from weightsmith.ops.cache_rows import Row, is_named, newest_ids, rows_of, targets_of
from weightsmith.ops.cover_rows import narrow
from weightsmith.ops.covered import Cover
from weightsmith.progress import SILENCE, Progress
from weightsmith.units import counted, format_size

Clock = Literal["used", "modified"]

LEFTOVERS: Final = frozenset({"incomplete", "unreferenced"})
WHY: Final = {
    "duplicates": ".bin weights beside safetensors of the same revision",
    "incomplete": "an incomplete download",
    "unreferenced": "no revision points at it",
    "broken": "the hub library cannot read it",
}
"""Why rows of these kinds are deleted: their kind is the reason."""
_DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class CleanPlan:
    """What is in the cache, what of it will be deleted, and why."""

    cache: Cache
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    covers: Mapping[str, Cover] = field(default_factory=dict)
    """The proof that a delta rebuilds what goes, by the rows' ids."""

    @property
    def removed(self) -> tuple[Row, ...]:
        """The rows that go."""
        return tuple(row for row in self.rows if row.remove)

    @property
    def freed_nbytes(self) -> int:
        """Bytes that deleting them frees; what is shared with what stays is not counted."""
        return freed_nbytes(self.cache, *targets_of(self.removed))

    def to_document(self) -> dict[str, Any]:
        """The plan as a document."""
        return {
            "cache": str(self.cache.root),
            "nbytes": self.cache.nbytes,
            "freed_nbytes": self.freed_nbytes,
            "rows": [row.to_document() for row in self.rows],
            "unreadable": list(self.cache.unreadable),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What became of a plan."""

    plan: CleanPlan
    freed_nbytes: int
    """Measured: the cache's size before, less its size after."""
    left_nbytes: int

    def to_document(self) -> dict[str, Any]:
        """The plan, and what became of it."""
        return {
            **self.plan.to_document(),
            "freed_nbytes": self.freed_nbytes,
            "left_nbytes": self.left_nbytes,
        }


def plan_clean_cache(
    *sources: str,
    older_than_s: float | None = None,
    max_nbytes: int | None = None,
    keep_last: int | None = None,
    keep: Sequence[str] = (),
    duplicates: bool = False,
    covered_by: Sequence[str] = (),
    by: Clock = "used",
    cache: str | os.PathLike[str] | None = None,
    options: Options | None = None,
    progress: Progress = SILENCE,
) -> CleanPlan:
    """Decide what goes; nothing is deleted, and but for `covered_by` only pins are opened.

    Selectors narrow: what is named, and older, and not among the newest `keep_last` of its
    repository, and rebuilt byte for byte by one of the deltas `covered_by`, directories or in the
    cache, whose base is in the cache: each such model is rebuilt and compared. `max_nbytes` then
    takes of that only what it must, the least recently used first.
    Without any selector, only incomplete downloads and unreferenced blobs go. What `keep` matches,
    what is being downloaded, and what a removed model is rebuilt from stays.
    Raises: SourceIsDirectory, SourceUnknown, NotInCache; LastUsedUnknown; as `covered.prove` and
    `covered.open_rebuilder`.
    """
    found = scan(connect(cache=cache).cache)
    pins = Pins(found)
    unknown = found.last_use_unknown
    if unknown and by == "used" and (older_than_s is not None or max_nbytes is not None):
        raise LastUsedUnknown(cache=found.root, reason=unknown)
    rows = rows_of(found, pins, used_known=not unknown)
    named = [_source_of(source, rows) for source in sources]
    for source in named:
        if not any(is_named(row, source) for row in rows):
            known = sorted({row.repo for row in rows if row.repo})
            raise NotInCache(source=source.text, cache=found.root, context=known)
    kinds = LEFTOVERS
    if duplicates:
        kinds = frozenset({"duplicates"})
    elif keep_last is not None or covered_by:
        kinds = frozenset({"revision"})
    elif sources or older_than_s is not None or max_nbytes is not None:
        kinds = LEFTOVERS | {"broken", "revision"}
    newest = newest_ids(rows, keep_last or 0)
    now = time.time()

    def judge(row: Row) -> Row:
        """The row and what is to become of it, `max_nbytes` left aside."""
        age_s = now - _time(row, by)
        if row.locked:
            return row
        if pattern := next((p for p in keep if fnmatch.fnmatchcase(row.repo, p)), None):
            return replace(row, reason=f"kept: `keep={pattern}`", locked=True)
        if row.kind not in kinds:
            return replace(row, reason=_unselected(row, kinds, covering=bool(covered_by)))
        if named and not any(is_named(row, source) for source in named):
            return replace(row, reason="not named")
        if older_than_s is not None and age_s < older_than_s:
            return replace(row, reason=f"{by} {_ago(age_s)} ago")
        if row.id in newest:
            return replace(row, reason=f"one of the newest {keep_last}")
        reason = _joined(
            WHY.get(row.kind),
            named and "named",
            older_than_s is not None and f"not {by} for {_ago(age_s)}",
            keep_last is not None and f"not one of the newest {keep_last}",
        )
        return replace(row, remove=True, reason=reason)

    rows = [judge(row) for row in rows]
    notes = [*pins.faults(), *_idle_notes(pins)]
    covers: Mapping[str, Cover] = {}
    if covered_by:
        work = options or Options()
        rows, covers, said = narrow(rows, covered_by, found, pins, work, progress)
        notes += said
    if max_nbytes is not None:
        rows = _evict(found, rows, max_nbytes, by)
    rows = _whole(rows)
    if max_nbytes is not None:
        removed = [row for row in rows if row.remove]
        left = found.nbytes - freed_nbytes(found, *targets_of(removed))
        if left > max_nbytes:
            notes.append(f"{format_size(left)} stay: more than asked for, but nothing else may go")
    return CleanPlan(found, tuple(rows), tuple(notes), covers)


def choose(plan: CleanPlan, ids: Collection[str]) -> CleanPlan:
    """The plan that deletes exactly these rows, except those that are locked."""
    rows = [
        replace(row, remove=True, reason="chosen")
        if row.id in ids and not row.locked
        else replace(row, remove=False, reason=row.reason if row.locked else "not chosen")
        for row in plan.rows
    ]
    return replace(plan, rows=tuple(_whole(rows)), notes=())


def clean_cache(
    *sources: str,
    older_than_s: float | None = None,
    max_nbytes: int | None = None,
    keep_last: int | None = None,
    keep: Sequence[str] = (),
    duplicates: bool = False,
    covered_by: Sequence[str] = (),
    by: Clock = "used",
    cache: str | os.PathLike[str] | None = None,
    options: Options | None = None,
    progress: Progress = SILENCE,
) -> Cleaned:
    """Delete what `plan_clean_cache` chooses of the hub's cache, without asking.

    Raises: as `plan_clean_cache` and `carry_out`.
    """
    plan = plan_clean_cache(
        *sources,
        older_than_s=older_than_s,
        max_nbytes=max_nbytes,
        keep_last=keep_last,
        keep=keep,
        duplicates=duplicates,
        covered_by=covered_by,
        by=by,
        cache=cache,
        options=options,
        progress=progress,
    )
    return carry_out(plan)


def carry_out(plan: CleanPlan) -> Cleaned:
    """Delete what the plan says, by the hub library's own deletion strategies.

    Raises: CacheBusy; CacheChanged, InputChanged, if something that is to go is needed by now, or
    is no longer what was compared: nothing was deleted then; TargetUnwritable, if something could
    not be deleted; the rest has been.
    """
    revisions, links, leftovers = targets_of(plan.removed)
    if plan.removed:
        with cleaning(plan.cache.root):
            remove_pins(_require_free(plan).idle())
            # All pins are durable before anything goes: stopped at any instant, what is gone has
            # one, and a pin whose model is still whole keeps nothing.
            for cover in (plan.covers[row.id] for row in plan.removed if row.id in plan.covers):
                cover.require_same()
                write_pin(plan.cache.root, cover.pin)
            delete(plan.cache.root, revisions, links, leftovers)
    after = scan(plan.cache.root)
    there = {file.link for revision in after.revisions for file in revision.files}
    there |= {leftover.path for leftover in after.leftovers}
    links |= {file.link for revision in revisions for file in revision.files}
    wanted = links | {leftover.path for leftover in leftovers}
    if undone := sorted(map(str, wanted & there)):
        raise TargetUnwritable(
            where=plan.cache.root,
            reason=f"{counted(len(undone), 'file')} could not be deleted",
            context=undone,
            hint="check who owns them; their owner can run the same command",
        )
    return Cleaned(plan, plan.cache.nbytes - after.nbytes, after.nbytes)


def _idle_notes(pins: Pins) -> list[str]:
    models = dict.fromkeys(each.pin.model.short for each in pins.idle() if each.pin is not None)
    return [
        f"{model} is in the cache with all its files: its pin keeps nothing, and goes as soon as "
        "something is deleted"
        for model in models
    ]


def _require_free(plan: CleanPlan) -> Pins:
    """The pins as they are now.

    Raises: CacheChanged, if something has come to lean on what goes.
    """
    now = scan(plan.cache.root)
    pins = Pins(now)
    rows = rows_of(now, pins, used_known=False)
    pinned = {row.id: row.reason for row in rows if row.pinned}
    for row in plan.removed:
        if row.id in pinned:
            raise CacheChanged(what=row.id, reason=pinned[row.id])
    return pins


def _evict(cache: Cache, rows: list[Row], max_nbytes: int, by: Clock) -> list[Row]:
    """Keep what fits into `max_nbytes`: leftovers go first, then the least recently used rows."""
    gone: list[Row] = []
    may_go = [row for row in rows if row.remove]
    for row in sorted(may_go, key=lambda row: (not row.leftovers, _time(row, by), row.id)):
        if cache.nbytes - freed_nbytes(cache, *targets_of(gone)) <= max_nbytes:
            break
        gone.append(row)
    ids = {row.id for row in gone}
    size = format_size(max_nbytes)

    def judge(row: Row) -> Row:
        if not row.remove:
            return row
        if row.id not in ids:
            return replace(row, remove=False, reason=f"fits into {size}")
        return replace(row, reason=_joined(row.reason, f"to get down to {size}"))

    return [judge(row) for row in rows]


def _whole(rows: list[Row]) -> list[Row]:
    """If the last revision of a repository is deleted, delete its leftovers too."""
    revisions = [row for row in rows if row.kind == "revision"]
    # One of which hidden files stay has links to go, and no revision.
    staying = {row.repo for row in revisions if not (row.remove and row.revisions)}
    going = {row.repo for row in revisions} - staying
    return [
        replace(row, remove=True, reason="goes with its repository")
        if row.leftovers and row.repo in going and not row.remove
        else row
        for row in rows
    ]


def _source_of(source: str, rows: list[Row]) -> HubSource:
    """What a person names: a repository as the table has it, datasets and spaces too, or as
    anywhere.
    """
    repo, _, revision = source.partition("@")
    if repo.casefold() in {row.repo.casefold() for row in rows if row.repo}:
        return HubSource(source, (repo,), revision or None)
    return parse_hub_source(source)


def _unselected(row: Row, kinds: frozenset[str], *, covering: bool) -> str:
    """Why a row of no selected kind stays."""
    if covering and row.kind != "duplicates":
        return "`covered_by` does not select it"
    if row.kind == "duplicates":
        return "goes by itself only with `duplicates=True`"
    if kinds == LEFTOVERS and row.kind == "broken":
        return "the hub library cannot read it; name it, and it goes"
    if kinds == LEFTOVERS:
        return "no option selects it"
    return f"`{'duplicates' if 'duplicates' in kinds else 'keep_last'}` does not select it"


def _time(row: Row, by: Clock) -> float:
    return row.used if by == "used" and row.used is not None else row.modified


def _joined(*reasons: object) -> str:
    return ", ".join(str(reason) for reason in reasons if reason)


def _ago(seconds: float) -> str:
    """``"45 days"``; in hours below two days."""
    if seconds < 3600:
        return "less than an hour"
    if seconds < 2 * _DAY_S:
        return counted(int(seconds // 3600), "hour")
    return counted(int(seconds // _DAY_S), "day")

"""Narrow what may go of the cache to what a delta that stays rebuilds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from weightsmith.engine.options import Options
from weightsmith.hub.cache import Cache
from weightsmith.hub.pins import Commit, Pins
from weightsmith.ops.cache_rows import Row, Uncovered
from weightsmith.ops.covered import Cover, Rebuilder, commit_of, open_rebuilder, prove
from weightsmith.ops.inspect import held_by
from weightsmith.progress import Progress
from weightsmith.units import counted


def narrow(
    rows: Sequence[Row],
    deltas: Sequence[str],
    cache: Cache,
    pins: Pins,
    options: Options,
    progress: Progress,
) -> tuple[list[Row], dict[str, Cover], tuple[str, ...]]:
    """Of the rows that may go, those that one of the deltas rebuilds; the proofs by the rows' ids,
    and what else is to be said.

    A directory of deltas stands for all of them. A delta and its base stay as soon as a row goes on
    their account, and what goes is nobody's base: the order of the deltas decides.
    Raises: as `open_rebuilder` and `prove`.
    """
    covers: dict[str, Cover] = {}
    gone: dict[Commit, str] = {}
    kept: dict[Commit, str] = {}
    lacking: dict[str, tuple[str, tuple[Uncovered, ...]]] = {}
    notes = []
    for delta in (inner for each in deltas for inner in held_by(each)):
        rebuilder = open_rebuilder(delta, cache)
        if not rebuilder.hashes:
            notes.append(f"{delta} restores tensors, but not the files as they were")
        if going := next((each for each in rebuilder.kept if each in gone), None):
            notes.append(f"{delta} is not used: {going.short}, which it needs, goes itself")
            continue
        for row in rows:
            if not row.remove or row.id in covers:
                continue
            (revision,) = row.revisions
            model = commit_of(revision)
            if model in kept or model in rebuilder.kept:
                continue
            if not rebuilder.could_make(revision) and not _begun(model, rebuilder, pins):
                continue
            found = prove(rebuilder, revision, options, progress)
            if isinstance(found, Cover):
                covers[row.id] = found
                gone[model] = delta
                kept |= dict.fromkeys(rebuilder.kept, delta)
            else:
                lacking[row.id] = delta, found
    return [_judged(row, covers, kept, lacking) for row in rows], covers, tuple(notes)


def _begun(model: Commit, rebuilder: Rebuilder, pins: Pins) -> bool:
    """Whether a model is the rest of one whose removal, as covered by this delta, was cut short."""
    return any(
        found.pin is not None and found.pin.model == model and found.pin.delta == rebuilder.delta
        for found in pins.found
    )


def _judged(
    row: Row,
    covers: Mapping[str, Cover],
    kept: Mapping[Commit, str],
    lacking: Mapping[str, tuple[str, tuple[Uncovered, ...]]],
) -> Row:
    if not row.remove:
        return row
    if cover := covers.get(row.id):
        because = f"rebuilt by {cover.delta}"
        reason = f"{because}, {row.reason}" if row.reason else because
        (revision,) = row.revisions
        if len(cover.links) == len(revision.files):
            return replace(row, reason=reason)
        # Hidden files stay, and the revision with them.
        return replace(row, reason=reason, revisions=frozenset(), links=cover.links)
    model = Commit(row.repo, row.revision)
    if model in kept:
        reason = f"kept: {kept[model]} needs it"
        return replace(row, remove=False, reason=reason, locked=True)
    if row.id in lacking:
        delta, files = lacking[row.id]
        reason = f"{delta} does not rebuild {counted(len(files), 'file')} of it"
        return replace(row, remove=False, reason=reason, uncovered=files)
    return replace(row, remove=False, reason="no delta that was named rebuilds it")

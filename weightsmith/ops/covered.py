"""Which cached models a delta rebuilds byte for byte: found out by rebuilding them."""

import os
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from weightsmith import fs
from weightsmith.checkpoint.content import Content
from weightsmith.codecs.base import Range
from weightsmith.engine.derived import Proved
from weightsmith.engine.options import Options
from weightsmith.engine.spans import Buffers, map_spans
from weightsmith.errors import DeltaNotExact, InputChanged, NoBase, NotInCache
from weightsmith.formats.tensors import TensorInfo
from weightsmith.hub.cache import Cache, CachedFile, CachedRevision
from weightsmith.hub.pins import Commit, Pin
from weightsmith.hub.places import CachePlace
from weightsmith.hub.resolve import DEFAULT_REVISION, parse_source
from weightsmith.ops.cache_rows import Uncovered
from weightsmith.ops.deltas.exact import plan_restore
from weightsmith.ops.job import Job
from weightsmith.plan.model import RestoredPlan
from weightsmith.progress import SILENCE, Progress
from weightsmith.sources.exact import tell_slow
from weightsmith.sources.kinds import ExactDelta
from weightsmith.sources.links import PLUS, spelled
from weightsmith.sources.locate import Located, LocatedChain, label_of
from weightsmith.sources.recognise import recognise

_NOWHERE: Final = Path(os.sep, "weightsmith-nowhere")
"""A plan names its target; nothing is ever made there."""
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
"""The name of a blob that is its sha256, as large files have it."""


@dataclass(frozen=True, slots=True)
class Rebuilder:
    """An exact delta and its base, both of which are to be kept."""

    label: str
    """The delta as the user wrote it."""
    delta: Commit | Path
    """Where it is: in the cache, or in a directory."""
    base: tuple[CachedRevision, ...]
    """The base; of a delta on other deltas, these too."""
    job: Job
    """What `apply_delta` would do."""
    hashes: Mapping[str, str]
    """sha256 of each weight file that it restores, by name."""
    folders: tuple[Path, ...]
    """Where the files of delta and base lie."""

    @property
    def kept(self) -> tuple[Commit, ...]:
        """The revisions of the cache that it needs."""
        here = (self.delta,) if isinstance(self.delta, Commit) else ()
        return (*map(commit_of, self.base), *here)

    def could_make(self, revision: CachedRevision) -> bool:
        """Whether a weight file of a revision looks like one that it restores; none is read."""
        return any(
            file.blob.name == self.hashes[file.name] or not _DIGEST.fullmatch(file.blob.name)
            for file in revision.files
            if file.name in self.hashes
        )


@dataclass(frozen=True, slots=True)
class Cover:
    """A delta that rebuilds a cached model, as it was proved."""

    delta: str
    """As the user wrote it."""
    pin: Pin
    links: frozenset[Path]
    """Of the files that it rebuilds, which may go."""
    seen: Mapping[Path, fs.Identity]
    """Every file of model, delta and base, as it was when they were compared."""

    def require_same(self) -> None:
        """Raises: InputChanged, if one of the files has changed since."""
        _require_same(self.seen, _identities(self.seen))


def open_rebuilder(delta: str, cache: Cache) -> Rebuilder:
    """An exact delta, a directory or in the cache, on its base in the cache. Nothing is fetched.

    Raises: SourceNotFound, NotInCache; DeltaNotExact, NoBase; as `recognise` and `plan_restore`.
    """
    named = parse_source(delta)
    revision = _holding(named, cache) if isinstance(named, Path) else _named(delta, cache)
    place = _located(revision, cache, delta) if revision is not None else delta
    found = recognise(place)
    if not isinstance(found, ExactDelta):
        raise DeltaNotExact(delta=delta, reason=found.why)
    record = found.record
    if not record.base.id:
        raise NoBase(
            delta=delta,
            hint="make it with the base from the hub, or say what it is: `base_id=ORG/NAME@COMMIT`",
        )
    links = [_named(each, cache) for each in spelled(record.base.id).split(PLUS)]
    parts = [_located(link, cache, str(commit_of(link))) for link in links]
    label = PLUS.join(map(label_of, parts))
    base = parts[0] if len(parts) == 1 else LocatedChain(tuple(parts), label)
    folder = Path(os.fspath(place)).resolve()
    return Rebuilder(
        label=delta,
        delta=commit_of(revision) if revision is not None else folder,
        base=tuple(links),
        job=plan_restore(base, found, _NOWHERE),
        hashes={file.name: file.sha256 for file in record.files},
        folders=(folder, *(Path(os.fspath(part)) for part in parts)),
    )


def prove(
    rebuilder: Rebuilder,
    revision: CachedRevision,
    options: Options,
    progress: Progress = SILENCE,
) -> Cover | tuple[Uncovered, ...]:
    """Rebuild a cached model as it would be restored, and compare every byte with its files.

    Hidden files, which are no part of a model, are left out: they are not to go either.
    Reading the model does not count as a use of it.
    Memory: as `apply_delta`, and a span more a worker.
    Raises: WrongBase, DeltaInvalid, if base or delta are damaged; InputChanged.
    """
    files = {file.name: file for file in revision.files if not _is_hidden(file.name)}
    paths = [*(file.bytes_at for file in files.values()), *_files_in(rebuilder.folders)]
    seen = _identities(paths)
    job = rebuilder.job
    shards = [shard for shard in job.plan.shards if isinstance(shard, RestoredPlan)]
    weights = [shard for shard in shards if shard.name in files]
    contents = job.bindings.sidecars
    uncovered = [
        Uncovered(name, "the delta does not hold it")
        for name in files
        if name not in contents and name not in {shard.name for shard in weights}
    ]
    tell_slow(progress, *job.bindings.inputs.values())
    progress.begin("comparing", sum(shard.data_nbytes for shard in weights))
    uncovered += [
        Uncovered(name, "the delta makes other bytes")
        for name, file in files.items()
        if name in contents and not _is_content(file, contents[name])
    ]
    uncovered += [
        Uncovered(shard.name, "the delta makes other bytes")
        for shard in weights
        if not _is_shard(files[shard.name], shard, job, options, progress)
    ]
    # Reading may set a time of change (an access time put back), and no other.
    after = _identities(paths)
    _require_same(seen, after, but_ctime=True)
    if uncovered:
        return tuple(sorted(uncovered, key=lambda each: each.file))
    sizes = tuple((name, file.nbytes) for name, file in sorted(files.items()))
    base = tuple(map(commit_of, rebuilder.base))
    return Cover(
        delta=rebuilder.label,
        pin=Pin(commit_of(revision), base, rebuilder.delta, sizes),
        links=frozenset(file.link for file in files.values()),
        seen=after,
    )


def commit_of(revision: CachedRevision) -> Commit:
    """A revision's repository and commit."""
    return Commit(revision.repo_id, revision.commit)


def _is_shard(
    cached: CachedFile, shard: RestoredPlan, job: Job, options: Options, progress: Progress
) -> bool:
    """Whether a weight file comes out as it is in the cache."""
    delta = job.bindings.inputs["delta"]
    model = Proved(
        label=delta.label,
        directory=delta.directory,
        rules=shard.tensors,
        inputs=job.bindings.inputs,
        sidecars={},
    )
    with fs.open_unnoticed(cached.bytes_at) as file:
        if file.size != shard.nbytes or file.read(0, len(shard.header)) != shard.header:
            progress.advance(shard.data_nbytes)
            return False
        differs = threading.Event()

        def compare(info: TensorInfo, span: Range, own: Buffers) -> None:
            if not differs.is_set():
                made, there = own.block(0, span.nbytes), own.block(1, span.nbytes)
                model.read_into(info.name, span.start, made)
                file.read_into(shard.places[info.name].offset + span.start, there)
                if made != there:
                    differs.set()
            progress.advance(span.nbytes)

        workers = 1 if model.sequential else options.threads
        infos = [tensor.output for tensor in shard.tensors]
        map_spans(infos, [Buffers() for _ in range(workers)], compare)
    return not differs.is_set()


def _is_content(cached: CachedFile, content: Content) -> bool:
    """Whether a file beside the weights comes out as it is in the cache."""
    with fs.open_unnoticed(cached.bytes_at) as file:
        if file.size != content.nbytes:
            return False
        offset = 0
        for piece in content.pieces():
            if file.read(offset, len(piece)) != piece:
                return False
            offset += len(piece)
        return offset == file.size


def _named(source: str, cache: Cache) -> CachedRevision:
    """What the cache holds of ``org/name@revision``. Raises: NotInCache."""
    repo_id, _, revision = source.partition("@")
    for each in cache.revisions:
        here = each.repo_type == "model" and each.repo_id == repo_id
        if here and (each.commit == revision or (revision or DEFAULT_REVISION) in each.refs):
            return each
    raise NotInCache(source=source, cache=cache.root, hint=f"weightsmith download {source}")


def _holding(folder: Path, cache: Cache) -> CachedRevision | None:
    """The revision whose snapshot a folder is or lies in; None, if it is not of this cache."""
    real = folder.resolve()
    for each in cache.revisions:
        snapshot = snapshot_of(each, cache)
        if real == snapshot or snapshot in real.parents:
            return each
    return None


def _located(revision: CachedRevision, cache: Cache, label: str) -> Located:
    """A revision as a source that is here already."""
    return Located(snapshot_of(revision, cache), label, str(commit_of(revision)))


def snapshot_of(revision: CachedRevision, cache: Cache) -> Path:
    """The folder of a revision."""
    root = cache.root.resolve()
    return CachePlace(root, revision.repo_id, revision.commit).folder


def _files_in(folders: Iterable[Path]) -> list[Path]:
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


def _identities(paths: Iterable[Path]) -> dict[Path, fs.Identity]:
    """Of those that are there; one that is gone is missed by whoever compares."""
    states = {path: fs.file_state(path) for path in paths}
    return {path: fs.identity_of(state) for path, state in states.items() if state is not None}


def _require_same(
    before: Mapping[Path, fs.Identity],
    after: Mapping[Path, fs.Identity],
    *,
    but_ctime: bool = False,
) -> None:
    """Raises: InputChanged."""
    for path, identity in before.items():
        now = after.get(path)
        if now is None or (now[:4] != identity[:4] if but_ctime else now != identity):
            raise InputChanged(file=path)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)

"""Replace the damaged files of a model by right ones.

The manifest states the digest of every file and tensor, or else the hub does. A file is replaced
only by one that has the stated digest, and a manifest only by one that a source proves.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from weightsmith import fs
from weightsmith.checkpoint.content import Content
from weightsmith.checkpoint.layout import DELTA_INDEX
from weightsmith.engine.manifest import LIMIT_NBYTES, Manifest, read_manifest
from weightsmith.engine.manifest import NAME as MANIFEST
from weightsmith.engine.options import Options
from weightsmith.engine.spans import Buffers
from weightsmith.errors import FixSourceMissing, FixUnproved, JsonInvalid, SourceNotFound
from weightsmith.ops.fix.carry_out import Workbench
from weightsmith.ops.fix.damage import Damage, DamagedFile, find_damage
from weightsmith.ops.fix.decide import needs_source, plan_fixes
from weightsmith.ops.fix.from_hub import fix_from_hub
from weightsmith.ops.fix.hints import fix_command, make_again
from weightsmith.ops.fix.mend import Mend
from weightsmith.ops.fix.possible import possible_truths
from weightsmith.ops.fix.put_in_place import fixing, identity, require_replaceable, tidy
from weightsmith.ops.fix.recover import Recovered, recover
from weightsmith.ops.fix.report import CannotFix, FileFix, FixReport
from weightsmith.ops.fix.truth import (
    Reach,
    Truth,
    known_truth,
    open_truth,
)
from weightsmith.progress import SILENCE, Progress
from weightsmith.sources.links import PLUS, split
from weightsmith.sources.locate import label_of

Where = str | os.PathLike[str]


def fix_files(
    folder: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    base: str | os.PathLike[str] | None = None,
    dry_run: bool = False,
    offline: bool = False,
    options: Options | None = None,
    progress: Progress = SILENCE,
) -> FixReport:
    """Replace the damaged files of a folder, and no other file.

    Of an output of weightsmith, `source` is a copy, or what it was made from (``BASE+DELTA``; what
    was converted; of a delta its target, beside its `base`); without one, inputs that its manifest
    knows from the hub are taken. Each file is made beside the old one, read back, held against the
    manifest's digests, and takes its name by one rename. A manifest that is damaged or gone is
    found again first (`recover`), and written last. Of any other folder, `source` is the hub id of
    which it is a copy (`fix_from_hub`).
    With `dry_run` it is only said what would be done; nothing is written.
    Memory: a few spans of 2 MiB a worker.
    Raises: FixSourceMissing, JsonInvalid, if nothing says what the files must be; FixUnproved, if
    the source does not prove it; what opening the source raises, and planning what would be made of
    it; DiskFull, TargetUnwritable, InputChanged.
    """
    path, chosen = Path(folder), options or Options()
    fs.require_directory(path)
    standing = _Standing.of(path)
    buffers = [Buffers() for _ in range(chosen.threads)]
    if standing.manifest is None and source is None:
        raise standing.error or FixSourceMissing(folder=path)
    if standing.before is None and isinstance(source, str) and _is_one_repository(source):
        return fix_from_hub(path, source, dry_run=dry_run, offline=offline, progress=progress)
    damage = Damage((), ())
    if standing.manifest is not None:
        progress.begin("reading", sum(each.size for each in standing.manifest.files.values()))
        damage = find_damage(path, standing.manifest, buffers, progress.advance)
    if not standing.fault and not damage.files:
        if not dry_run:
            tidy(path)
        return FixReport(path, ())
    with fixing(path, dry_run=dry_run) as work:
        reach = Reach(work, offline, chosen, progress)
        run = _Run(path, work, buffers, progress, dry_run=dry_run)
        if not standing.fault and standing.manifest is not None:
            truth = _truth(standing.manifest, damage, source, base, reach)
            return FixReport(path, run.fix(standing.manifest, damage, truth))
        truths: Iterator[Truth] = iter(())
        if source is not None:
            truths = possible_truths(path, source, standing.manifest, base, reach)
        elif standing.manifest is not None:
            truths = filter(None, [known_truth(standing.manifest, base, reach)])
        found = recover(path, standing.raw, standing.manifest, truths, buffers, progress)
        if isinstance(found, Recovered):
            return FixReport(path, run.fix_with(found, standing))
        if standing.manifest is None:
            raise FixUnproved(
                folder=path,
                source=label_of(source or ""),
                context=[f"{name} can be read, and differs" for name in found],
                hint=_command_for(path, label_of(source or ""), base),
            )
        left = _left(path, standing, source)
        truth = _truth(standing.manifest, damage, source, base, reach)
        return FixReport(path, (left, *run.fix(standing.manifest, damage, truth)))


@dataclass(frozen=True, slots=True)
class _Standing:
    """What there is of a folder's manifest."""

    manifest: Manifest | None
    """As far as it can be read."""
    fault: str
    """What is wrong with it, as a clause; empty, if it is sound."""
    raw: bytes
    before: fs.Identity | None
    """The file's identity when it was read; None if there is no file."""
    error: JsonInvalid | None = None
    """Why it cannot be read."""

    @classmethod
    def of(cls, folder: Path) -> "_Standing":
        """Raises: SourceUnreadable, NotRegularFile, if what has the name cannot be read at all."""
        before = identity(folder / MANIFEST)
        try:
            raw = fs.read_small(folder / MANIFEST, LIMIT_NBYTES)
            manifest = read_manifest(folder)
        except SourceNotFound:
            return cls(None, "it is missing", b"", None)
        except JsonInvalid as error:
            return cls(None, "it cannot be read", raw, before, error)
        is_sound = manifest is not None and manifest.is_of(raw)
        return cls(manifest, "" if is_sound else "it was changed", raw, before)


def _is_one_repository(source: str) -> bool:
    return not os.path.lexists(source) and len(split(source)) == 1


def _truth(
    manifest: Manifest, damage: Damage, source: Where | None, base: Where | None, reach: Reach
) -> Truth | None:
    """Raises: as `open_truth`."""
    if source is not None:
        return open_truth(source, manifest, base, reach)
    return known_truth(manifest, base, reach) if needs_source(damage) else None


def _command_for(folder: Path, source: str, base: Where | None) -> str | None:
    """What makes an output again of the source and base that were named, if that is clear."""
    if base is not None:
        base = label_of(base)
        return f"make it again: weightsmith make-delta --base {base} --target {source} -o NEW"
    if (folder / DELTA_INDEX).is_file():
        return f"name its base too: weightsmith verify {folder} --fix --from {source} --base BASE"
    *below, last = split(source)
    if not below:
        return None
    first = PLUS.join(below)
    return f"make it again: weightsmith apply-delta --base {first} --delta {last} -o NEW"


def _left(folder: Path, standing: _Standing, source: Where | None) -> FileFix:
    """That a changed manifest stays as it is."""
    if source is None:
        why = "only a copy of the folder, or what it was made from, can tell what it was"
        hint = fix_command(folder, standing.manifest)
    else:
        why = f"nothing shows that the folder is what {label_of(source)} holds or makes"
        hint = make_again(standing.manifest)
    return FileFix(MANIFEST, standing.fault, "left", why, hint=hint)


@dataclass(frozen=True, slots=True)
class _Run:
    """Fixes the files of a folder, or says how they would be fixed."""

    folder: Path
    work: Path
    buffers: Sequence[Buffers]
    progress: Progress
    dry_run: bool

    def fix(self, manifest: Manifest, damage: Damage, truth: Truth | None) -> tuple[FileFix, ...]:
        """All files that are not what the manifest says."""
        fixes = plan_fixes(self.folder, manifest, damage, truth)
        return tuple(self._carry_out(fixes, manifest))

    def fix_with(self, found: Recovered, standing: _Standing) -> tuple[FileFix, ...]:
        """The same by a manifest that was lost, and the manifest last: whoever is killed in between
        finds it again.
        """
        damaged = DamagedFile(MANIFEST, self.folder / MANIFEST, standing.fault, standing.before)
        raw = found.manifest.to_bytes()
        how = f"from {found.truth.label}"
        own: Mend | FileFix = Mend(damaged, Content(raw), how, len(raw))
        try:
            require_replaceable(self.folder, damaged.path)
        except CannotFix as error:
            own = FileFix(MANIFEST, standing.fault, "left", str(error), hint=error.hint)
        others = self.fix(found.manifest, found.damage, found.truth)
        return (*self._carry_out([own], found.manifest), *others)

    def _carry_out(self, fixes: Sequence[Mend | FileFix], manifest: Manifest) -> Iterator[FileFix]:
        if self.dry_run:
            yield from map(_can_be_fixed, fixes)
            return
        if nbytes := sum(each.nbytes for each in fixes if isinstance(each, Mend)):
            self.progress.begin("rebuilding", nbytes)
        bench = Workbench(self.folder, manifest, self.work, self.buffers, self.progress)
        yield from map(bench.carry_out, fixes)


def _can_be_fixed(fix: Mend | FileFix) -> FileFix:
    if isinstance(fix, FileFix):
        return fix
    return FileFix(fix.damaged.name, fix.damaged.why, "can be fixed", fix.how, fix.nbytes)

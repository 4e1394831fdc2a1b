"""Replace the damaged files of a model by right ones.

The manifest states the digest of every file and tensor, or else the hub does. A file is replaced
only by one that has the stated digest.
"""

import os
from pathlib import Path

from weightsmith import fs
from weightsmith.engine.manifest import LIMIT_NBYTES, Manifest, read_manifest
from weightsmith.engine.manifest import NAME as MANIFEST
from weightsmith.engine.options import Options
from weightsmith.engine.spans import Buffers
from weightsmith.errors import FixSourceMissing
from weightsmith.ops.verify.carry_out import Workbench
from weightsmith.ops.verify.damage import find_damage
from weightsmith.ops.verify.fix_from_hub import fix_from_hub
from weightsmith.ops.verify.fix_plan import needs_source, plan_fixes
from weightsmith.ops.verify.fix_report import FileFix, FixReport
from weightsmith.ops.verify.mend import Mend
from weightsmith.ops.verify.put_in_place import fixing, tidy
from weightsmith.ops.verify.truth import Reach, known_truth, open_truth
from weightsmith.progress import SILENCE, Progress


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
    knows from the hub are taken. Each file is
    made beside the old one, read back, held against the manifest's digests, and takes its name by
    one rename. Of any other folder, `source` is the hub id of which it is a copy (`fix_from_hub`).
    With `dry_run` it is only said what would be done; nothing is written.
    Memory: a few spans of 2 MiB a worker.
    Raises: FixSourceMissing, if there is neither manifest nor hub id; what reading it raises,
    opening the source, and planning what would be made of it; DiskFull, TargetUnwritable,
    InputChanged.
    """
    path, chosen = Path(folder), options or Options()
    fs.require_directory(path)
    manifest = read_manifest(path)
    if manifest is None:
        if not isinstance(source, str) or os.path.lexists(source):
            raise FixSourceMissing(folder=path)
        return fix_from_hub(path, source, dry_run=dry_run, offline=offline, progress=progress)
    buffers = [Buffers() for _ in range(chosen.threads)]
    progress.begin("reading", sum(file.size for file in manifest.files.values()))
    damage = find_damage(path, manifest, buffers, progress.advance)
    own = _of_the_manifest(path, manifest)
    if not damage.files:
        if not dry_run:
            tidy(path)
        return FixReport(path, own)
    with fixing(path, dry_run=dry_run) as work:
        reach = Reach(offline, work / "inputs", progress)
        truth = None
        if source is not None:
            truth = open_truth(source, manifest, base, reach)
        elif needs_source(damage):
            truth = known_truth(manifest, base, reach)
        fixes = plan_fixes(path, manifest, damage, truth)
        if dry_run:
            return FixReport(path, (*own, *map(_can_be_fixed, fixes)))
        if mends := [each for each in fixes if isinstance(each, Mend)]:
            progress.begin("rebuilding", sum(each.nbytes for each in mends))
        bench = Workbench(path, manifest, work, buffers, progress)
        return FixReport(path, (*own, *map(bench.carry_out, fixes)))


def _of_the_manifest(folder: Path, manifest: Manifest) -> tuple[FileFix, ...]:
    """Report a changed manifest, and leave it: nothing else says what it must be."""
    if manifest.is_of(fs.read_small(folder / MANIFEST, LIMIT_NBYTES)):
        return ()
    why = "nothing else says what it must be: make the output anew, or copy all of it"
    return (FileFix(MANIFEST, "it was changed", "left", why),)


def _can_be_fixed(fix: Mend | FileFix) -> FileFix:
    if isinstance(fix, FileFix):
        return fix
    return FileFix(fix.damaged.name, fix.damaged.why, "can be fixed", fix.how, fix.nbytes)

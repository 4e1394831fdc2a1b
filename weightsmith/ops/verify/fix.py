"""Replace the damaged files of a model by right ones.

The manifest states the digest of every file and tensor, or else the hub does. A file is replaced
only by one that has the stated digest.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.content import Content
from weightsmith.engine.inputs import Countdown
from weightsmith.engine.manifest import LIMIT_NBYTES, Manifest, read_manifest
from weightsmith.engine.manifest import NAME as MANIFEST
from weightsmith.engine.options import Options
from weightsmith.engine.output import require_same
from weightsmith.engine.shard import begin, fill, read_back
from weightsmith.engine.spans import Buffers
from weightsmith.errors import DamagedInput, FixSourceMissing, Mismatch
from weightsmith.ops.verify.damage import find_damage
from weightsmith.ops.verify.fix_from_hub import fix_from_hub
from weightsmith.ops.verify.fix_plan import OURS, THEIRS, CannotFix, Mend, needs_source, plan_fixes
from weightsmith.ops.verify.fix_report import FileFix, FixReport, Outcome
from weightsmith.ops.verify.put_in_place import (
    fixing,
    put_in_place,
    tidy,
)
from weightsmith.ops.verify.truth import known_truth, open_truth
from weightsmith.plan.model import RestoredPlan
from weightsmith.progress import SILENCE, Progress
from weightsmith.units import counted


def fix_files(
    folder: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    dry_run: bool = False,
    offline: bool = False,
    options: Options | None = None,
    progress: Progress = SILENCE,
) -> FixReport:
    """Replace the damaged files of a folder, and no other file.

    Of an output of weightsmith, `source` is a copy, or what it was made from (``BASE+DELTA``; what
    was converted); without one, inputs that its manifest knows from the hub are taken. Each file is
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
    reach = known_truth if source is None else partial(open_truth, source)
    with fixing(path, dry_run=dry_run) as work:
        truth = None
        if source is not None or needs_source(damage):
            truth = reach(manifest, offline=offline, spool=work / "inputs", progress=progress)
        fixes = plan_fixes(path, manifest, damage, truth)
        if not dry_run:
            mends = [each for each in fixes if isinstance(each, Mend)]
            if mends:
                progress.begin("rebuilding", sum(each.nbytes for each in mends))
            fixes = [_carried_out(each, manifest, work, buffers, progress) for each in fixes]
    return FixReport(path, (*own, *(_told(each, "can be fixed") for each in fixes)))


def _of_the_manifest(folder: Path, manifest: Manifest) -> tuple[FileFix, ...]:
    """Report a changed manifest, and leave it: nothing else says what it must be."""
    if manifest.is_of(fs.read_small(folder / MANIFEST, LIMIT_NBYTES)):
        return ()
    why = "nothing else says what it must be: make the output anew, or copy all of it"
    return (FileFix(MANIFEST, "it was changed", "left", why),)


def _told(fix: Mend | FileFix, outcome: Outcome) -> FileFix:
    if isinstance(fix, FileFix):
        return fix
    return FileFix(fix.damaged.name, fix.damaged.why, outcome, fix.how, fix.nbytes)


def _carried_out(
    fix: Mend | FileFix,
    manifest: Manifest,
    work: Path,
    buffers: Sequence[Buffers],
    progress: Progress,
) -> FileFix:
    """Make one file beside the old one, prove it, and let it take the name.

    Raises: InputChanged, if somebody wrote to the old one meanwhile; as `fix_files`.
    """
    if isinstance(fix, FileFix):
        return fix
    damaged = fix.damaged
    staged = work / "new"
    try:
        if isinstance(fix.made_as, Content):
            _copy(fix.made_as, manifest.sidecars[damaged.name].digest, staged)
        else:
            _rebuild(fix.made_as, fix.inputs, staged, buffers, progress)
    except (CannotFix, DamagedInput, Mismatch) as error:
        # Whatever came out is not what the manifest says: the next file begins anew.
        staged.unlink(missing_ok=True)
        return FileFix(damaged.name, damaged.why, "left", str(error))
    put_in_place(staged, damaged.path, damaged.before)
    return _told(fix, "fixed")


def _copy(content: Content, digest: str, staged: Path) -> None:
    """Write a small file, sync it, and read it back.

    Raises: CannotFix.
    """
    fs.write_durably(staged, content.pieces(), mode=content.mode)
    if Content(file=staged).digest != digest:
        raise CannotFix("what it was to be replaced by has just changed")


def _rebuild(
    plan: RestoredPlan,
    inputs: Mapping[str, Checkpoint],
    staged: Path,
    buffers: Sequence[Buffers],
    progress: Progress,
) -> None:
    """Write a weight file, sync it, and read it back.

    Raises: CannotFix, if a tensor comes out with another digest than the manifest's;
    VerificationFailed, if it does when it is read back.
    """
    placed = replace(plan, name=staged.name)
    alone = any(checkpoint.sequential for checkpoint in inputs.values())
    file = begin(placed, staged.parent)
    made = fill(
        placed,
        inputs,
        file,
        buffers[:1] if alone else buffers,
        progress.advance,
        Countdown([placed], inputs),
        lambda *_: None,
        look=lambda *_: None,
        drop_cache=False,
    )
    wrong = [rule.output.name for rule in plan.tensors if made[rule.output.name] != rule.digest]
    if wrong:
        source = inputs[THEIRS].label if THEIRS in inputs else inputs[OURS].label
        more = f" and {counted(len(wrong) - 1, 'other')}" if len(wrong) > 1 else ""
        raise CannotFix(f"{source} gives another {wrong[0]}{more} than the manifest states")
    file.sync()
    require_same(staged, read_back(staged, placed, buffers, lambda _: None), made)

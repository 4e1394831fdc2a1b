"""Fix the weight files of a folder without a manifest: a copy of a repository of the hub."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.checkpoint.content import Content
from weightsmith.checkpoint.discover import list_directory
from weightsmith.checkpoint.layout import DELTA_INDEX, INDEXES, MANIFEST
from weightsmith.checkpoint.opening import open_weight_file
from weightsmith.errors import DamagedInput, SourceFault
from weightsmith.hub.hashes import hash_file
from weightsmith.hub.listing import RepoFile
from weightsmith.hub.resolve import Resolved
from weightsmith.hub.store import HubStore
from weightsmith.ops.fix.put_in_place import (
    fixing,
    identity,
    put_in_place,
    require_replaceable,
)
from weightsmith.ops.fix.report import CannotFix, FileFix, FixReport
from weightsmith.progress import Progress
from weightsmith.sources.plan_download import plan_download

_OURS: Final = (*INDEXES, DELTA_INDEX, MANIFEST)
"""Files beside the weights that nobody changes by hand: they say what the weights are."""


def fix_from_hub(
    folder: Path, source: str, *, dry_run: bool, offline: bool, progress: Progress
) -> FixReport:
    """Replace weight files that are missing or cannot be read. If at least one weight file is the
    repository's, replace all that differ from it.

    So a fine-tune is not taken for a damaged copy of its base. The hub's hashes say what a file
    must be. Index and manifest are replaced as well, if a weight file is the repository's; other
    files beside the weights are left alone: people change them on purpose.
    Raises: as `plan_download`; DiskFull, TargetUnwritable, InputChanged.
    """
    names, _ = list_directory(folder)
    torch_only = not any(name.endswith(".safetensors") for name in names)
    has_torch = any(name.endswith(".bin") for name in names)
    found = plan_download(
        source,
        weights="bin" if torch_only and has_torch else "auto",
        offline=offline,
        room=False,
        note=progress.note,
    )
    with fixing(folder, dry_run=dry_run) as work:
        store = HubStore(found, work / "hub", progress)
        files = [file for file in found.files if file.name in {*store.weights, *_OURS}]
        progress.begin("hashing", sum(file.nbytes for file in files))
        fixes = []
        for fix in _judged(folder, found, files, progress):
            file = next(each for each in files if each.name == fix.file)
            if fix.outcome == "can be fixed" and not dry_run:
                fixes.append(_fetched(folder, file, fix, store, work, found.label))
            else:
                fixes.append(fix)
    return FixReport(folder, tuple(fixes))


def _judged(
    folder: Path, found: Resolved, files: Iterable[RepoFile], progress: Progress
) -> list[FileFix]:
    """The files that are not the repository's, and whether they should be."""
    faults: dict[str, str] = {}
    other: set[str] = set()
    any_there = any((folder / name).is_file() for name in INDEXES)
    same = False
    nbytes = {file.name: file.nbytes for file in files}
    for file in sorted(files, key=lambda file: file.name in _OURS):  # the weights tell first
        path = folder / file.name
        if file.name in _OURS and not same:
            continue
        try:
            digest = hash_file(path, file.digest) if file.digest else ""
            if digest and digest == file.digest:
                same = True
                continue
            if file.name not in _OURS:
                open_weight_file(folder, file.name)
            faults[file.name] = f"its hash is not that of {found.label}"
            other.add(file.name)
        except (DamagedInput, SourceFault) as error:
            faults[file.name] = str(error)
        any_there = any_there or path.is_file()
        progress.advance(file.nbytes)
    fixes = []
    again = f"to have that of the hub: weightsmith download {found.label} -o NEW"
    for name, fault in faults.items():
        fix = FileFix(name, fault, "can be fixed", f"from {found.label}", nbytes[name])
        reason = ""
        if name in other and not same:
            reason = f"it can be read, and nothing here shows that it was that of {found.label}"
        elif not (any_there or same):
            reason = f"the folder has no weight file of {found.label}"
        try:
            require_replaceable(folder, folder / name)
        except CannotFix as error:
            fix = fix.left(str(error), error.hint)
        else:
            fix = fix.left(reason, again) if reason else fix
        fixes.append(fix)
    return fixes


def _fetched(
    folder: Path, file: RepoFile, fix: FileFix, store: HubStore, work: Path, label: str
) -> FileFix:
    """The file fetched, proved by its hash, and put in its place."""
    before = identity(folder / file.name)
    staged = work / "new"
    try:
        fs.write_durably(staged, Content(file=store.open(file.name).path).pieces())
        if hash_file(staged, file.digest) != file.digest:
            staged.unlink()
            hint = f"fetch it again: weightsmith download {label}"
            return fix.left("the file of the hub's cache is damaged too", hint)
    except (DamagedInput, SourceFault) as error:
        staged.unlink(missing_ok=True)
        return fix.left(str(error))
    put_in_place(staged, folder / file.name, before)
    store.release(file.name)
    return FileFix(fix.file, fix.fault, "fixed", fix.how, file.nbytes)

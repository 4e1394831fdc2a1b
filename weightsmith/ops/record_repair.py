"""Bring a folder's manifest up to date after a repair of its tokenizer and config files."""

import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.engine import manifest as manifests
from weightsmith.engine.in_place import kept_as, replace_files, workshop
from weightsmith.errors import WeightsmithError
from weightsmith.ops.tokenizer_files import LIMIT_NBYTES, embedding_rows, read_files
from weightsmith.repair.contents import READ
from weightsmith.repair.detect import diagnose, mend
from weightsmith.repair.folder import Folder

WORKSHOP: Final = "repair"
"""What a scratch directory of a repair is named with."""


def record_repair(folder: Path, asked: Folder) -> None:
    """Bring the manifest's digests up to date, if repairs are all that was done to the sidecars.

    What the files were is read from the ``.bak`` copies, so that this also finishes a repair which
    was stopped before it came here. Anything else that was changed is left for `verify` to tell.
    """
    manifest = manifests.read_manifest(folder)
    if manifest is None:
        return
    files = read_files(folder)
    now = {name: raw for name, raw in files.items() if not (folder / name).is_symlink()}
    published: dict[str, bytes] = {}
    for name in READ:
        if name in manifest.sidecars:
            for raw in (now.get(name), *_kept(folder / name)):
                if raw is not None and bytes_digest(raw) == manifest.sidecars[name].digest:
                    published[name] = raw
    if published == now:
        return  # the files are as the manifest says: nothing was repaired
    rows, _ = embedding_rows(folder)
    names, reader, exact = asked.names, asked.reader, asked.exact_class
    diagnosis = diagnose(
        published, embedding_rows=rows, names=names, reader=reader, exact_class=exact
    )
    if not diagnosis.mendable or diagnosis.incurable:
        return
    repair = mend(diagnosis)
    if repair.after.files != now:
        return
    entries = {n: manifests.Sidecar(len(raw), bytes_digest(raw)) for n, raw in now.items()}
    ids = dict.fromkeys((*manifest.repairs, *(fault.id for fault in repair.faults)))
    kept = {n: entry for n, entry in manifest.sidecars.items() if n not in published or n in now}
    updated = replace(manifest, sidecars={**kept, **entries}, repairs=tuple(ids))
    old = fs.read_small(folder / manifests.NAME, LIMIT_NBYTES)
    with workshop(folder, WORKSHOP) as work:
        new = {manifests.NAME: updated.to_bytes()}
        replace_files(folder, {manifests.NAME: old}, new, work, backups=False)


def _kept(path: Path) -> Iterator[bytes]:
    """Old contents of a file; what else lies under their names is somebody's, and left alone."""
    for backup in itertools.takewhile(os.path.lexists, kept_as(path)):
        if backup.is_symlink():
            continue
        try:
            raw = fs.read_small(backup, LIMIT_NBYTES)
        except WeightsmithError:
            continue
        yield raw

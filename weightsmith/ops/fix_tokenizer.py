"""Repair a folder's tokenizer and config files, proved before a file is touched."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.checkpoint.opening import open_checkpoint
from weightsmith.checkpoint.sidecars import TOKENIZER, is_sidecar, matches
from weightsmith.engine import manifest as manifests
from weightsmith.errors import (
    BehindLink,
    JsonInvalid,
    NoTokenizer,
    NoWeights,
    TargetExists,
    TargetUnwritable,
    TokenizerInvalid,
    WeightsmithError,
)
from weightsmith.repair.detect import Diagnosis, Repair, diagnose, mend
from weightsmith.repair.faults import Fault
from weightsmith.repair.folder import MODEL, READ, TOKENIZER_JSON
from weightsmith.repair.proof import Proof, probes_for_readers, prove_reader
from weightsmith.smoke.tokenizer import ask_transformers

LIMIT_NBYTES: Final = 64_000_000
"""Largest file that is read; the largest tokenizer.json of a published model has 34 MB."""
BACKUP: Final = ".bak"
_OTHER_COPY_HINT: Final = "choose another directory: `local_copy=DIR`"
_COPY_HINT: Final = "write a repaired copy of these files elsewhere: `local_copy=DIR`"


@dataclass(frozen=True, slots=True)
class Change:
    """One file before and after its repair."""

    file: str
    before: bytes | None
    """None where there was no such file."""
    after: bytes


@dataclass(frozen=True, slots=True)
class TokenizerPlan:
    """What a repair of a folder would change; proved in memory, nothing is written."""

    folder: Path
    faults: tuple[Fault, ...]
    changes: tuple[Change, ...]
    repair: Repair
    proofs: tuple[Proof, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TokenizerResult:
    """What a repair has changed."""

    folder: Path
    """Where the repaired files are: the folder itself, or the local copy."""
    faults: tuple[Fault, ...]
    changes: tuple[Change, ...]
    proofs: tuple[Proof, ...]
    notes: tuple[str, ...]


def check_tokenizer(folder: str | os.PathLike[str]) -> Diagnosis:
    """Look for known faults in a folder's tokenizer and config files; nothing is written.

    Raises: SourceNotFound, NoTokenizer, SourceUnreadable; JsonInvalid.
    """
    path = Path(folder)
    files = _read(path)
    rows, notes = _embedding_rows(path)
    diagnosis = diagnose(files, embedding_rows=rows)
    return replace(diagnosis, notes=(*diagnosis.notes, *notes))


def plan_fix_tokenizer(folder: str | os.PathLike[str]) -> TokenizerPlan:
    """Decide what a repair changes, and prove `tokenizer.json` in memory; nothing is written.

    Raises: as `check_tokenizer`; NoTokenizer, TokenizerTruncated and other errors that say why a
    fault cannot be repaired; TokenizerUnproved.
    """
    diagnosis = check_tokenizer(folder)
    repair = mend(diagnosis)
    before = diagnosis.before.files
    changes = tuple(Change(n, before.get(n), raw) for n, raw in repair.changed.items())
    proofs = (repair.proof,) if repair.proof else ()
    return TokenizerPlan(Path(folder), repair.faults, changes, repair, proofs, diagnosis.notes)


def fix_tokenizer(
    folder: str | os.PathLike[str], *, local_copy: str | os.PathLike[str] | None = None
) -> TokenizerResult:
    """Repair a folder, or write repaired copies of its files beside the weights to `local_copy`.

    The new files are proved in a scratch directory by transformers itself. Then each file that
    changes is kept once as ``.bak``, and replaced by one rename; a manifest is brought up to date
    last. Running it again finishes a run that was stopped, and changes nothing else.
    Raises: as `plan_fix_tokenizer` and `carry_out`.
    """
    return carry_out(plan_fix_tokenizer(folder), local_copy=local_copy)


def carry_out(
    plan: TokenizerPlan, *, local_copy: str | os.PathLike[str] | None = None
) -> TokenizerResult:
    """Prove a plan with transformers, and write what it changes.

    Raises: TokenizerUnproved; BehindLink, TargetUnwritable, TargetExists.
    """
    target = Path(local_copy) if local_copy is not None else plan.folder
    _require_writable(plan, target)
    proofs = plan.proofs
    if plan.changes and plan.repair.after.llama:
        proofs = (*proofs, _proved_by_transformers(plan.repair))
    hint = _COPY_HINT if local_copy is None else _OTHER_COPY_HINT
    try:
        if local_copy is not None:
            _write_copy(plan, target)
        else:
            _replace(plan)
            record_repair(plan.folder)
    except OSError as error:
        raise TargetUnwritable(where=target, reason=error.strerror, hint=hint) from error
    return TokenizerResult(target, plan.faults, plan.changes, proofs, plan.notes)


def record_repair(folder: Path) -> None:
    """Bring the manifest's digests up to date, if repairs are all that was done to the sidecars.

    What the files were is read from the ``.bak`` copies, so that this also finishes a repair which
    was stopped before it came here. Anything else that was changed is left for `verify` to tell.
    """
    manifest = manifests.read_manifest(folder)
    if manifest is None:
        return
    now = {name: raw for name, raw in _read(folder).items() if not (folder / name).is_symlink()}
    published: dict[str, bytes] = {}
    for name in READ:
        if name in manifest.sidecars:
            backup = _read_if_there(folder / (name + BACKUP))
            for raw in (now.get(name), backup):
                if raw is not None and bytes_digest(raw) == manifest.sidecars[name].digest:
                    published[name] = raw
    rows, _ = _embedding_rows(folder)
    diagnosis = diagnose(published, embedding_rows=rows)
    if not diagnosis.faults or diagnosis.incurable or mend(diagnosis).after.files != now:
        return
    entries = {n: manifests.Sidecar(len(raw), bytes_digest(raw)) for n, raw in now.items()}
    ids = dict.fromkeys((*manifest.repairs, *(fault.id for fault in diagnosis.faults)))
    updated = replace(manifest, sidecars={**manifest.sidecars, **entries}, repairs=tuple(ids))
    fs.write_durably(folder / manifests.NAME, updated.to_bytes())
    fs.sync_directory(folder)


def _read(folder: Path) -> dict[str, bytes]:
    """The files that a diagnosis looks at.

    Raises: SourceNotFound, SourceIsFile, NoTokenizer, SourceUnreadable.
    """
    fs.require_directory(folder)
    if not any(matches(each.name, TOKENIZER) for each in folder.iterdir()):
        raise NoTokenizer(source=folder)
    contents = {name: _read_if_there(folder / name) for name in READ}
    return {name: raw for name, raw in contents.items() if raw is not None}


def _read_if_there(path: Path) -> bytes | None:
    if not path.exists():
        return None
    if (size := path.stat().st_size) > LIMIT_NBYTES:
        kind = TokenizerInvalid if path.name == MODEL else JsonInvalid
        raise kind(file=path, reason=f"it has {size} bytes, more than {LIMIT_NBYTES}")
    return fs.read_small(path, LIMIT_NBYTES)


def _embedding_rows(folder: Path) -> tuple[int | None, tuple[str, ...]]:
    """How many rows the weights' embeddings have, where there are weights that can be read."""
    try:
        return open_checkpoint(folder).embedding_rows, ()
    except NoWeights:
        return None, ()
    except WeightsmithError as error:
        return None, (f"the vocabulary's rows are taken from config.json: {error}",)


def _proved_by_transformers(repair: Repair) -> Proof:
    """Raises: TokenizerUnproved."""
    probes = probes_for_readers(repair.after)
    with tempfile.TemporaryDirectory(prefix="weightsmith-") as scratch:
        for name, raw in repair.after.files.items():
            Path(scratch, name).write_bytes(raw)
        answers = ask_transformers(Path(scratch), probes)
    return prove_reader(repair.after, probes, answers)


def _require_writable(plan: TokenizerPlan, target: Path) -> None:
    """Find out before the proof, which takes a second, whether writing has a chance.

    Raises: BehindLink, TargetUnwritable, TargetExists.
    """
    if target != plan.folder:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            reason = "it is not an empty directory"
            raise TargetExists(target=target, reason=reason, hint=_OTHER_COPY_HINT)
        return
    for change in plan.changes:
        path = target / change.file
        if path.is_symlink():
            raise BehindLink(file=path, target=path.readlink(), folder=target)
    if plan.changes and not os.access(target, os.W_OK):
        raise TargetUnwritable(where=target, reason="it is read-only", hint=_COPY_HINT)


def _replace(plan: TokenizerPlan) -> None:
    """Keep the old files once, then put the new ones in their places.

    `tokenizer.json` comes last: a folder without it is found faulty again, whatever else is done.
    """
    if not plan.changes:
        return
    for change in plan.changes:
        backup = plan.folder / (change.file + BACKUP)
        if change.before is not None and not backup.exists():
            fs.write_durably(backup, change.before)
    fs.sync_directory(plan.folder)
    for change in sorted(plan.changes, key=lambda change: change.file == TOKENIZER_JSON):
        fs.write_durably(plan.folder / change.file, change.after)
    fs.sync_directory(plan.folder)


def _write_copy(plan: TokenizerPlan, target: Path) -> None:
    """Write all files beside the weights to a new directory, the repaired ones as repaired."""
    partial = target.with_name(f".{target.name}.weightsmith-partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    repaired: Mapping[str, bytes] = plan.repair.after.files
    for each in sorted(plan.folder.iterdir()):
        if is_sidecar(each.name) and each.name not in repaired:
            fs.write_durably(partial / each.name, fs.read_small(each, LIMIT_NBYTES))
    for name, raw in repaired.items():
        fs.write_durably(partial / name, raw)
    fs.sync_directory(partial)
    if target.exists():
        target.rmdir()
    fs.rename(partial, target)
    fs.sync_directory(target.parent)

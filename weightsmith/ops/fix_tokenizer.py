"""Repair a folder's tokenizer and config files, after proving the repaired ones."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.checkpoint.content import Content, inside
from weightsmith.checkpoint.discover import list_directory, sizes_beside
from weightsmith.checkpoint.sidecars import is_sidecar
from weightsmith.engine import manifest as manifests
from weightsmith.engine.in_place import discard_left, replace_files, stage, workshop
from weightsmith.errors import (
    BehindLink,
    InputChanged,
    TargetExists,
    TargetUnwritable,
)
from weightsmith.ops.record_repair import WORKSHOP, record_repair
from weightsmith.ops.tokenizer_files import embedding_rows, read_files
from weightsmith.repair.contents import (
    CONFIG,
    GENERATION,
    MODEL,
    TOKENIZER_JSON,
    Reader,
)
from weightsmith.repair.detect import Diagnosis, Repair, diagnose, mend
from weightsmith.repair.examples import Example, examples
from weightsmith.repair.faults import Fault, parse_object
from weightsmith.repair.proof import Proof
from weightsmith.smoke.prove_tokenizer import prove_by_readers
from weightsmith.smoke.tokenizer import ask_tokenizers, refusal

_OTHER_COPY_HINT: Final = "choose another directory: `local_copy=DIR`"
_COPY_HINT: Final = "write a repaired copy of these files elsewhere: `local_copy=DIR`"


@dataclass(frozen=True, slots=True)
class Change:
    """One file before and after its repair."""

    file: str
    before: bytes | None
    """None if there was no such file."""
    after: bytes | None
    """None if the file is removed."""


@dataclass(frozen=True, slots=True)
class TokenizerPlan:
    """What a repair of a folder would change; nothing is written yet."""

    folder: Path
    diagnosis: Diagnosis
    """All that was found, with what is not mended."""
    faults: tuple[Fault, ...]
    """The faults that are mended."""
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
    already_done: bool = False
    """The local copy was there already, with the very files that this repair makes."""


def check_tokenizer(
    folder: str | os.PathLike[str], *, reader: Reader | None = None, exact_class: bool = False
) -> Diagnosis:
    """Look for known faults in a folder's tokenizer and config files; nothing is written.

    With a `reader`, only what that one misreads counts, even where a family of models was published
    that way. With `exact_class`, Llama's tokenizer class counts as a fault where transformers 5
    reads it in its own way.
    Raises: SourceNotFound, NoTokenizer, SourceUnreadable; JsonInvalid.
    """
    path = Path(folder)
    files = read_files(path)
    rows, notes = embedding_rows(path)
    raw = files.get(TOKENIZER_JSON)
    diagnosis = diagnose(
        files,
        embedding_rows=rows,
        names=os.listdir(path),  # noqa: PTH208  (names are all that is wanted)
        reader=reader,
        exact_class=exact_class,
        refused=None if raw is None else refusal(parse_object(raw, TOKENIZER_JSON)),
    )
    return replace(diagnosis, notes=(*diagnosis.notes, *notes))


def show_examples(diagnosis: Diagnosis) -> dict[str, Example]:
    """For each fault a text that is read wrongly because of it, by the fault's id."""
    return examples([*diagnosis.faults, *diagnosis.remarks], diagnosis.before, ask_tokenizers)


def plan_fix_tokenizer(
    folder: str | os.PathLike[str], *, reader: Reader | None = None, exact_class: bool = False
) -> TokenizerPlan:
    """Decide what a repair changes, and prove a `tokenizer.json` built anew; nothing is written.

    Raises: as `check_tokenizer`; NoTokenizer, TokenizerTruncated and others, if a fault cannot be
    repaired; TokenizerUnproved.
    """
    diagnosis = check_tokenizer(folder, reader=reader, exact_class=exact_class)
    repair = mend(diagnosis)
    before = diagnosis.before.files
    changes = tuple(Change(n, before.get(n), raw) for n, raw in repair.changed.items())
    changes += tuple(Change(name, before[name], None) for name in repair.deleted)
    proofs = (repair.proof,) if repair.proof else ()
    path, notes = Path(folder), diagnosis.notes
    return TokenizerPlan(path, diagnosis, repair.faults, changes, repair, proofs, notes)


def fix_tokenizer(
    folder: str | os.PathLike[str],
    *,
    local_copy: str | os.PathLike[str] | None = None,
    reader: Reader | None = None,
    exact_class: bool = False,
) -> TokenizerResult:
    """Repair a folder, or write repaired copies of its files beside the weights to `local_copy`.

    New tokenizer files are first read by transformers in a scratch directory, as the proof. Then
    each file that changes is kept as ``.bak``, or ``.bak.2`` where that is taken, and replaced by
    one rename; a manifest is brought up to date last. Running it again finishes a run that was
    stopped, and changes nothing else.
    Raises: as `plan_fix_tokenizer` and `carry_out`.
    """
    plan = plan_fix_tokenizer(folder, reader=reader, exact_class=exact_class)
    return carry_out(plan, local_copy=local_copy)


def carry_out(
    plan: TokenizerPlan, *, local_copy: str | os.PathLike[str] | None = None
) -> TokenizerResult:
    """Prove the changed tokenizer with transformers, and write all changed files.

    New files are prepared in a directory beside the old ones, which is removed however the run
    ends. A local copy that is there already, with the same files, is left as it is.
    Raises: TokenizerUnproved; BehindLink, TargetUnwritable, TargetExists, InputChanged.
    """
    target = Path(local_copy) if local_copy is not None else plan.folder
    proofs = plan.proofs
    if local_copy is not None and _is_copied(plan, target):
        discard_left(target.parent, target.name)
        return TokenizerResult(
            target, plan.faults, plan.changes, proofs, plan.notes, already_done=True
        )
    if local_copy is None:
        _require_replaceable(plan)
    else:
        _require_free(target)
    asked = plan.diagnosis.before
    if local_copy is None and not plan.changes:
        # A run that was stopped after replacing the files has left this undone.
        record_repair(plan.folder, asked)
        discard_left(plan.folder, WORKSHOP)
        return TokenizerResult(target, plan.faults, plan.changes, proofs, plan.notes)
    place, name = (target, WORKSHOP) if local_copy is None else (target.parent, target.name)
    hint = _COPY_HINT if local_copy is None else _OTHER_COPY_HINT
    try:
        place.mkdir(parents=True, exist_ok=True)
        with fs.translated_write_errors(place), workshop(place, name) as work:
            proof = _proved_by_readers(plan, work)
            proofs = (*proofs, proof) if proof else proofs
            _require_as_read(plan)
            if local_copy is not None:
                _write_copy(plan, target, work)
            else:
                _replace(plan, work)
        if local_copy is None:
            record_repair(plan.folder, asked)
    except TargetUnwritable as error:
        raise TargetUnwritable(**error.values, hint=hint) from error
    except OSError as error:
        raise TargetUnwritable(where=target, reason=error.strerror, hint=hint) from error
    return TokenizerResult(target, plan.faults, plan.changes, proofs, plan.notes)


def _proved_by_readers(plan: TokenizerPlan, work: Path) -> Proof | None:
    """The proof by the programs that read the tokenizer; None if none of their files changes.

    Raises: TokenizerUnproved.
    """
    if all(change.file in {CONFIG, GENERATION} for change in plan.changes):
        return None
    return prove_by_readers(plan.diagnosis.before, plan.repair.after, plan.faults, work)


def _require_replaceable(plan: TokenizerPlan) -> None:
    """Check before the proof, which takes a second, that the files can be replaced.

    The manifest, which is written last, is read first: a damaged one is told before anything else
    is changed.
    Raises: BehindLink, TargetUnwritable; as `read_manifest`.
    """
    manifests.read_manifest(plan.folder)
    for name in [*(change.file for change in plan.changes), manifests.NAME]:
        path = plan.folder / name
        if plan.changes and path.is_symlink():
            raise BehindLink(file=path, target=path.readlink(), folder=plan.folder)
    if plan.changes and not os.access(plan.folder, os.W_OK):
        raise TargetUnwritable(where=plan.folder, reason="it is read-only", hint=_COPY_HINT)


def _require_free(target: Path) -> None:
    """Raises: TargetExists."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        reason = "it is not an empty directory"
        raise TargetExists(target=target, reason=reason, hint=_OTHER_COPY_HINT)


def _require_as_read(plan: TokenizerPlan) -> None:
    """Raises: InputChanged, if somebody wrote to a file that the plan was made of since then."""
    before, now = plan.diagnosis.before.files, read_files(plan.folder)
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            raise InputChanged(file=plan.folder / name)


def _replace(plan: TokenizerPlan, work: Path) -> None:
    """Replace the old files with the new ones.

    `tokenizer.json` comes last: if the run is stopped before that, the next one finds the folder
    faulty and goes on.
    """
    ordered = sorted(plan.changes, key=lambda change: change.file == TOKENIZER_JSON)
    before = {change.file: change.before for change in ordered}
    replace_files(plan.folder, before, {change.file: change.after for change in ordered}, work)


def _kept(plan: TokenizerPlan) -> dict[str, Content]:
    """The other files beside the weights, which a copy takes as they are."""
    return {
        name: Content.of_file(inside(plan.folder, name))
        for name in sizes_beside(plan.folder, *list_directory(plan.folder))
        if is_sidecar(name) and name not in {*plan.repair.after.files, *plan.repair.deleted}
    }


def _is_copied(plan: TokenizerPlan, target: Path) -> bool:
    """Whether a directory holds exactly what `_write_copy` makes: an earlier run made it, and may
    have been stopped before it could say so.
    """
    wanted = {name: Content(raw) for name, raw in plan.repair.after.files.items()} | _kept(plan)
    found = {each.relative_to(target).as_posix(): each for each in target.rglob("*")}
    folders = {parent.as_posix() for name in wanted for parent in Path(name).parents} - {"."}
    if found.keys() != wanted.keys() | folders:
        return False
    return all(
        fs.read_if_file(found[name]) == b"".join(content.pieces())
        for name, content in wanted.items()
    )


def _write_copy(plan: TokenizerPlan, target: Path, work: Path) -> None:
    """Write all files beside the weights to a new directory, the repaired ones as repaired."""
    copy = work / "copy"
    copy.mkdir()
    repaired: Mapping[str, bytes] = plan.repair.after.files
    # No more open than the folder, but its owner may write there, if only to make it complete.
    copy.chmod(copy.stat().st_mode & (plan.folder.stat().st_mode | stat.S_IRWXU))
    for name, content in _kept(plan).items():
        (copy / name).parent.mkdir(exist_ok=True)
        fs.write_durably(copy / name, content.pieces(), mode=content.mode)
    model = plan.folder / MODEL  # new files were made from it, and take its permissions
    for name, raw in repaired.items():
        origin = plan.folder / name if (plan.folder / name).exists() else model
        stage(copy / name, raw, origin.stat().st_mode if origin.exists() else 0o666)
    fs.sync_directory(copy)
    if target.exists():
        target.rmdir()
    fs.rename(copy, target)
    fs.sync_directory(target.parent)

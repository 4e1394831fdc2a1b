"""Put right bytes in the place of a model's damaged files, where they can be had and proved.

What a file must be is known by digest: its manifest's, or else the hub's. Nothing else is believed,
and nothing is replaced by what does not have it.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.content import Content
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.checkpoint.layout import DELTA_INDEX, INDEXES
from weightsmith.engine.inputs import Countdown
from weightsmith.engine.manifest import LIMIT_NBYTES, Manifest, read_manifest
from weightsmith.engine.manifest import NAME as MANIFEST
from weightsmith.engine.options import Options
from weightsmith.engine.output import require_same
from weightsmith.engine.shard import begin, fill, read_back
from weightsmith.engine.spans import Buffers
from weightsmith.errors import DamagedInput, FixSourceMissing, Mismatch
from weightsmith.formats.index import build_index, parse_index
from weightsmith.formats.safetensors_header import MAX_HEADER_NBYTES, parse_header, read_header
from weightsmith.formats.tensors import TensorInfo
from weightsmith.ops.verify.damage import Damage, DamagedFile, DamagedWeights, find_damage
from weightsmith.ops.verify.fix_from_hub import fix_from_hub
from weightsmith.ops.verify.fix_report import FileFix, FixReport, Outcome
from weightsmith.ops.verify.put_in_place import (
    fixing,
    put_in_place,
    tidy,
    why_not_replaceable,
)
from weightsmith.ops.verify.truth import Truth, known_truth, open_truth
from weightsmith.plan.model import InputTensor, RestoredPlan, TensorPlan
from weightsmith.progress import SILENCE, Progress
from weightsmith.units import counted

AnyDamaged = TypeVar("AnyDamaged", bound=DamagedFile)

_OURS, _THEIRS = "here", "source"
_INDEXES: Final = (*INDEXES, DELTA_INDEX)


@dataclass(frozen=True, slots=True)
class _Mend:
    """How one file is to be made."""

    damaged: DamagedFile
    made_as: RestoredPlan | Content
    how: str
    inputs: Mapping[str, Checkpoint] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return self.made_as.nbytes


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
        if source is not None or damage.weights or _small_ones_lost(damage):
            truth = reach(manifest, offline=offline, spool=work / "inputs", progress=progress)
        fixes = _Planner(path, manifest, damage, truth).fixes()
        if not dry_run:
            mends = [each for each in fixes if isinstance(each, _Mend)]
            if mends:
                progress.begin("rebuilding", sum(each.nbytes for each in mends))
            fixes = [_carried_out(each, manifest, work, buffers, progress) for each in fixes]
    return FixReport(path, (*own, *(_told(each, "can be fixed") for each in fixes)))


def _of_the_manifest(folder: Path, manifest: Manifest) -> tuple[FileFix, ...]:
    """What everything else is held against has nothing to be held against but itself."""
    if manifest.is_of(fs.read_small(folder / MANIFEST, LIMIT_NBYTES)):
        return ()
    why = "nothing else says what it must be: make the output anew, or copy all of it"
    return (FileFix(MANIFEST, "it was changed", "left", why),)


def _small_ones_lost(damage: Damage) -> bool:
    """Whether files are damaged that cannot be made of the sound ones."""
    return any(each.name not in _INDEXES for each in damage.sidecars)


def _told(fix: _Mend | FileFix, outcome: Outcome) -> FileFix:
    if isinstance(fix, FileFix):
        return fix
    return FileFix(fix.damaged.name, fix.damaged.why, outcome, fix.how, fix.nbytes)


class CannotFix(Exception):
    """Why a file cannot be fixed, as a sentence."""


class _Planner:
    """Decides for every damaged file how it can be made."""

    def __init__(
        self, folder: Path, manifest: Manifest, damage: Damage, truth: Truth | None
    ) -> None:
        """Nothing is read yet."""
        self._folder = folder
        self._manifest = manifest
        self._damage = damage
        self._truth = truth
        self._infos = dict(damage.held)
        self._holders = {**self._listed(), **damage.holders}

    def fixes(self) -> list[_Mend | FileFix]:
        """The weight files, then what lies beside them: an index follows from all of those."""
        weights = [self._fix(each, self._weights) for each in self._damage.weights]
        return [*weights, *(self._fix(each, self._sidecar) for each in self._damage.sidecars)]

    def _fix(self, damaged: AnyDamaged, how: Callable[[AnyDamaged], _Mend]) -> _Mend | FileFix:
        reason = why_not_replaceable(self._folder, damaged.path)
        if not reason:
            try:
                return how(damaged)
            except CannotFix as error:
                reason = str(error)
        return FileFix(damaged.name, damaged.why, "left", reason)

    def _weights(self, damaged: DamagedWeights) -> _Mend:
        """Raises: CannotFix."""
        said, truth = self._manifest.files[damaged.name], self._truth
        if not damaged.name.endswith(".safetensors"):
            raise CannotFix("only safetensors files are rebuilt")
        inputs: dict[str, Checkpoint] = {}
        if damaged.opened is not None:
            inputs[_OURS] = damaged.opened
            header: bytes | None = read_header(damaged.opened.peek(damaged.name))[1]
        elif truth is not None:
            header = truth.header(damaged.name, said.header_digest, self._theirs(damaged.name))
        else:
            header = None
        if truth is not None:
            inputs[_THEIRS] = truth.checkpoint
        elif damaged.wrong or header is None:
            raise CannotFix(_nobody(self._manifest))
        if header is None:
            raise CannotFix(f"{_label(truth)} does not tell how its tensors lie in it")
        infos = [each.info for each in parse_header(header, said.size, Path(damaged.name)).tensors]
        plan = RestoredPlan(
            damaged.name, tuple(self._rule(info, damaged) for info in infos), given=header
        )
        self._infos |= {info.name: info for info in infos}
        self._holders |= dict.fromkeys((info.name for info in infos), damaged.name)
        bad = counted(len(damaged.wrong) or len(infos), "tensor")
        how = f"{bad} of {len(infos)} from {_label(truth)}"
        return _Mend(damaged, plan, how, inputs)

    def _rule(self, info: TensorInfo, damaged: DamagedWeights) -> TensorPlan:
        """Raises: CannotFix, if the source does not have the tensor."""
        digest = self._manifest.tensors.get(info.name, "")
        if damaged.opened is not None and info.name not in damaged.wrong:
            return TensorPlan.make("copy@1", {}, [InputTensor(_OURS, info, digest)], digest=digest)
        held = self._truth.checkpoint.tensors.get(info.name) if self._truth else None
        if held is None:
            raise CannotFix(f"{_label(self._truth)} has no {info.name}")
        rule = TensorPlan.cast_or_copy(InputTensor(_THEIRS, held.info), info.dtype)
        if rule.output != info:
            raise CannotFix(f"{info.name} is {held.info} in {_label(self._truth)}")
        return replace(rule, digest=digest)

    def _theirs(self, file: str) -> list[TensorInfo]:
        """The source's tensors of a file whose header is lost, where it is known which."""
        lost = [each.name for each in self._damage.weights if each.opened is None]
        names = [name for name, holder in self._holders.items() if holder == file]
        if not names and lost == [file]:
            names = [name for name in self._manifest.tensors if name not in self._holders]
        tensors = self._truth.checkpoint.tensors if self._truth else {}
        return [tensors[name].info for name in names if name in tensors]

    def _listed(self) -> dict[str, str]:
        """Which file holds each tensor, by an index that has its digest, here or at the source."""
        for name in _INDEXES:
            if (said := self._manifest.sidecars.get(name)) is None:
                continue
            theirs = self._truth.sidecars.get(name) if self._truth else None
            here = self._folder / name
            contents = [Content(file=here)] if here.is_file() else []
            for content in [*contents, *([theirs] if theirs else [])]:
                if content.digest == said.digest:
                    return parse_index(content.read(MAX_HEADER_NBYTES), here).weight_map
        return {}

    def _sidecar(self, damaged: DamagedFile) -> _Mend:
        """Raises: CannotFix."""
        digest = self._manifest.sidecars[damaged.name].digest
        if damaged.name in _INDEXES:
            for raw in self._indexes():
                if bytes_digest(raw) == digest:
                    return _Mend(damaged, Content(raw), "made of the weight files' headers")
        if self._truth is None:
            raise CannotFix(_nobody(self._manifest))
        content = self._truth.sidecars.get(damaged.name)
        if content is None:
            raise CannotFix(f"{self._truth.label} has no such file")
        if content.digest != digest:
            raise CannotFix(f"that of {self._truth.label} is another")
        return _Mend(damaged, content, f"from {self._truth.label}")

    def _indexes(self) -> Iterator[bytes]:
        """What an index of ours may be: those of models say how many parameters there are."""
        infos = self._infos.values()
        nbytes = sum(info.nbytes for info in infos)
        yield build_index(self._holders, nbytes, sum(info.numel for info in infos))
        yield build_index(self._holders, nbytes)


def _carried_out(
    fix: _Mend | FileFix,
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
        source = inputs[_THEIRS].label if _THEIRS in inputs else inputs[_OURS].label
        more = f" and {counted(len(wrong) - 1, 'other')}" if len(wrong) > 1 else ""
        raise CannotFix(f"{source} gives another {wrong[0]}{more} than the manifest states")
    file.sync()
    require_same(staged, read_back(staged, placed, buffers, lambda _: None), made)


def _label(truth: Truth | None) -> str:
    return "the file itself" if truth is None else truth.label


def _nobody(manifest: Manifest) -> str:
    """Why there is no source, and what could be one."""
    roles = [role for role in manifest.inputs if role not in manifest.origins]
    made = {"apply-delta": "BASE+DELTA, ", "convert": "what was converted, "}.get(manifest.verb, "")
    what = f"{made}or a copy of it" if made else "a copy of it"
    lacking = f" of {' and '.join(roles)}" if roles else ""
    return f"the manifest does not say where on the hub the bytes{lacking} are: name {what}"

"""Decide how each damaged file of a model can be made, from its manifest and a source of bytes."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.content import Content
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.checkpoint.layout import DELTA_INDEX, INDEXES
from weightsmith.engine.manifest import Manifest
from weightsmith.formats.index import build_index, parse_index
from weightsmith.formats.safetensors_header import MAX_HEADER_NBYTES, parse_header, read_header
from weightsmith.formats.tensors import TensorInfo
from weightsmith.ops.verify.damage import Damage, DamagedFile, DamagedWeights
from weightsmith.ops.verify.fix_report import FileFix
from weightsmith.ops.verify.put_in_place import why_not_replaceable
from weightsmith.ops.verify.truth import Truth
from weightsmith.plan.model import InputTensor, RestoredPlan, TensorPlan
from weightsmith.units import counted

AnyDamaged = TypeVar("AnyDamaged", bound=DamagedFile)

OURS, THEIRS = "here", "source"
"""The inputs of a rebuilt file: the damaged file itself, and the source of right bytes."""
_INDEXES: Final = (*INDEXES, DELTA_INDEX)


@dataclass(frozen=True, slots=True)
class Mend:
    """How the right file in the place of a damaged one is made."""

    damaged: DamagedFile
    made_as: RestoredPlan | Content
    """The plan of a weight file, or the content of any other file."""
    how: str
    """Where the right bytes come from, as a clause."""
    inputs: Mapping[str, Checkpoint] = field(default_factory=dict)
    """What a weight file is made from, by the names that its plan uses: `OURS`, `THEIRS`."""

    @property
    def nbytes(self) -> int:
        """Size of the right file."""
        return self.made_as.nbytes


class CannotFix(Exception):
    """Why a file cannot be fixed, as a sentence."""


def needs_source(damage: Damage) -> bool:
    """Whether any file must be made from other bytes: an index follows from the weight files."""
    return bool(damage.weights) or any(each.name not in _INDEXES for each in damage.sidecars)


def plan_fixes(
    folder: Path, manifest: Manifest, damage: Damage, truth: Truth | None
) -> list[Mend | FileFix]:
    """How each damaged file can be made; of one that cannot be, a `FileFix` that says why.

    The weight files come first, then the files beside them. Headers are read, and small files.
    """
    return _Planner(folder, manifest, damage, truth).fixes()


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

    def fixes(self) -> list[Mend | FileFix]:
        """The weight files, then what lies beside them: an index follows from all of those."""
        weights = [self._fix(each, self._weights) for each in self._damage.weights]
        return [*weights, *(self._fix(each, self._sidecar) for each in self._damage.sidecars)]

    def _fix(self, damaged: AnyDamaged, how: Callable[[AnyDamaged], Mend]) -> Mend | FileFix:
        reason = why_not_replaceable(self._folder, damaged.path)
        if not reason:
            try:
                return how(damaged)
            except CannotFix as error:
                reason = str(error)
        return FileFix(damaged.name, damaged.why, "left", reason)

    def _weights(self, damaged: DamagedWeights) -> Mend:
        """Raises: CannotFix."""
        said, truth = self._manifest.files[damaged.name], self._truth
        if not damaged.name.endswith(".safetensors"):
            raise CannotFix("only safetensors files are rebuilt: copy it, or make the output anew")
        inputs: dict[str, Checkpoint] = {}
        if damaged.opened is not None:
            inputs[OURS] = damaged.opened
            header: bytes | None = read_header(damaged.opened.peek(damaged.name))[1]
        elif truth is not None:
            header = truth.header(damaged.name, said.header_digest, self._theirs(damaged.name))
        else:
            header = None
        if truth is not None:
            inputs[THEIRS] = truth.checkpoint
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
        return Mend(damaged, plan, how, inputs)

    def _rule(self, info: TensorInfo, damaged: DamagedWeights) -> TensorPlan:
        """Raises: CannotFix, if the source does not have the tensor."""
        digest = self._manifest.tensors.get(info.name, "")
        if damaged.opened is not None and info.name not in damaged.wrong:
            return TensorPlan.make("copy@1", {}, [InputTensor(OURS, info, digest)], digest=digest)
        held = self._truth.checkpoint.tensors.get(info.name) if self._truth else None
        if held is None:
            raise CannotFix(f"{_label(self._truth)} has no {info.name}")
        rule = TensorPlan.cast_or_copy(InputTensor(THEIRS, held.info), info.dtype)
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

    def _sidecar(self, damaged: DamagedFile) -> Mend:
        """Raises: CannotFix."""
        digest = self._manifest.sidecars[damaged.name].digest
        if damaged.name in _INDEXES:
            for raw in self._indexes():
                if bytes_digest(raw) == digest:
                    return Mend(damaged, Content(raw), "made of the weight files' headers")
        if self._truth is None:
            raise CannotFix(_nobody(self._manifest))
        content = self._truth.sidecars.get(damaged.name)
        if content is None:
            raise CannotFix(f"{self._truth.label} has no such file")
        if content.digest != digest:
            raise CannotFix(f"that of {self._truth.label} is another")
        return Mend(damaged, content, f"from {self._truth.label}")

    def _indexes(self) -> Iterator[bytes]:
        """What an index of ours may hold: a model's also states the number of parameters."""
        infos = self._infos.values()
        nbytes = sum(info.nbytes for info in infos)
        yield build_index(self._holders, nbytes, sum(info.numel for info in infos))
        yield build_index(self._holders, nbytes)


def _label(truth: Truth | None) -> str:
    return "the file itself" if truth is None else truth.label


def _nobody(manifest: Manifest) -> str:
    """That the manifest names no source that can be fetched, and what the user can name."""
    roles = [role for role in manifest.inputs if role not in manifest.origins]
    made = {"apply-delta": "BASE+DELTA, ", "convert": "what was converted, "}.get(manifest.verb, "")
    what = f"{made}or a copy of it" if made else "a copy of it"
    lacking = f" of {' and '.join(roles)}" if roles else ""
    return f"the manifest does not say where on the hub the bytes{lacking} are: name {what}"

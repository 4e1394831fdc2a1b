"""Decide how each damaged file of a model can be made, from its manifest and a source of bytes."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.content import Content
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.checkpoint.layout import DELTA_INDEX, INDEXES
from weightsmith.checkpoint.whole_files import WholeFiles
from weightsmith.engine.manifest import Manifest
from weightsmith.formats.index import build_index, parse_index
from weightsmith.formats.safetensors_header import MAX_HEADER_NBYTES, parse_header, read_header
from weightsmith.formats.tensors import TensorInfo
from weightsmith.ops.fix.damage import Damage, DamagedFile, DamagedWeights
from weightsmith.ops.fix.hints import COPY, fix_command, make_again, source_of
from weightsmith.ops.fix.mend import OURS, THEIRS, Headers, Mend
from weightsmith.ops.fix.put_in_place import require_replaceable
from weightsmith.ops.fix.report import CannotFix, FileFix
from weightsmith.ops.fix.truth import Truth
from weightsmith.plan.model import InputTensor, RestoredPlan, TensorPlan
from weightsmith.units import counted, format_count

AnyDamaged = TypeVar("AnyDamaged", bound=DamagedFile)

ALL_INDEXES: Final = (*INDEXES, DELTA_INDEX)


def needs_source(damage: Damage) -> bool:
    """Whether any file must be made from other bytes: an index follows from the weight files."""
    return bool(damage.weights) or any(each.name not in ALL_INDEXES for each in damage.sidecars)


def plan_fixes(
    folder: Path, manifest: Manifest, damage: Damage, truth: Truth | None
) -> list[Mend | FileFix]:
    """How each damaged file can be made; of one that cannot be, a `FileFix` that says why.

    The weight files come first, then the files beside them. Headers are read, and small files.
    """
    return _Planner(folder, manifest, damage, truth).fixes()


def indexes_of(holders: Mapping[str, str], infos: Mapping[str, TensorInfo]) -> Iterator[bytes]:
    """What an index of ours may hold: a model's also states the number of parameters."""
    nbytes = sum(info.nbytes for info in infos.values())
    yield build_index(holders, nbytes, sum(info.numel for info in infos.values()))
    yield build_index(holders, nbytes)


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
        self._is_later = False
        """Whether a header shows only when its file has been made."""

    def fixes(self) -> list[Mend | FileFix]:
        """The weight files, then what lies beside them: an index follows from all of those."""
        weights = [self._fix(each, self._weights) for each in self._damage.weights]
        return [*weights, *(self._fix(each, self._sidecar) for each in self._damage.sidecars)]

    def _fix(self, damaged: AnyDamaged, how: Callable[[AnyDamaged], Mend]) -> Mend | FileFix:
        try:
            require_replaceable(self._folder, damaged.path)
            return how(damaged)
        except CannotFix as error:
            hint = error.hint or make_again(self._manifest)
            return FileFix(damaged.name, damaged.why, "left", str(error), hint=hint)

    def _weights(self, damaged: DamagedWeights) -> Mend:
        """Raises: CannotFix."""
        said, truth = self._manifest.files[damaged.name], self._truth
        if truth is not None and truth.lacks_base:
            hint = f"weightsmith verify {self._folder} --fix --from {truth.label} --base BASE"
            raise CannotFix("a delta is made again of target and base, and no base is named", hint)
        as_it_is = truth is not None and isinstance(truth.checkpoint, WholeFiles)
        if as_it_is or not damaged.name.endswith(".safetensors"):
            return self._whole(damaged, said.size)
        if truth is not None and truth.encoding is not None:
            return self._coded(damaged, truth)
        inputs: dict[str, Checkpoint] = {}
        if damaged.opened is not None:
            inputs[OURS] = damaged.opened
            header: bytes | None = read_header(damaged.opened.peek(damaged.name))[1]
        elif truth is not None:
            header = truth.header(damaged.name, said.header_digest, self._theirs(damaged.name))
        else:
            header = None
        if truth is None and (damaged.wrong or header is None):
            raise self._no_source()
        if truth is not None:
            inputs[THEIRS] = truth.checkpoint
        if header is None:
            raise CannotFix(f"{self._label} makes no such file")
        infos = [each.info for each in parse_header(header, said.size, Path(damaged.name)).tensors]
        plan = RestoredPlan(
            damaged.name, tuple(self._rule(info, damaged) for info in infos), given=header
        )
        self._infos |= {info.name: info for info in infos}
        self._holders |= dict.fromkeys((info.name for info in infos), damaged.name)
        bad = len(damaged.wrong) or len(infos)
        how = f"{bad} of {counted(len(infos), 'tensor')} from {self._label}"
        return Mend(damaged, plan, how, plan.nbytes, inputs)

    def _whole(self, damaged: DamagedFile, nbytes: int) -> Mend:
        """A file that is decoded again, or copied, whole.

        Raises: CannotFix.
        """
        if self._truth is None:
            raise self._no_source()
        found = self._truth.whole(damaged.name)
        if found is None:
            raise CannotFix(f"{self._label} has no such file")
        plan, inputs = found
        if plan.nbytes != nbytes:
            raise CannotFix(
                f"the file of this name in {self._label} has {counted(plan.nbytes, 'byte')}"
                f" instead of {format_count(nbytes)}"
            )
        return Mend(damaged, plan, f"from {self._label}", nbytes, inputs)

    def _coded(self, damaged: DamagedWeights, truth: Truth) -> Mend:
        """A file of an exact delta, coded again of base and target.

        Raises: CannotFix, if it cannot be a file of the delta between these.
        """
        plan, encoding = truth.shards.get(damaged.name), truth.encoding
        known = {each.info for each in encoding.record.tensors} if encoding else set()
        if plan is None or encoding is None or not {*_outputs(truth)} == known:
            raise CannotFix(f"the delta between {truth.label} has other tensors or files")
        self._is_later = True
        nbytes = self._manifest.files[damaged.name].size
        how = f"coded again of {truth.label}"
        return Mend(damaged, encoding, how, nbytes, truth.inputs)

    def _rule(self, info: TensorInfo, damaged: DamagedWeights) -> TensorPlan:
        """Raises: CannotFix, if the source does not have the tensor."""
        digest = self._manifest.tensors.get(info.name, "")
        if damaged.opened is not None and info.name not in damaged.wrong:
            return TensorPlan.make("copy@1", {}, [InputTensor(OURS, info, digest)], digest=digest)
        held = self._truth.checkpoint.tensors.get(info.name) if self._truth else None
        if held is None:
            raise CannotFix(f"{self._label} has no {info.name}")
        rule = TensorPlan.cast_or_copy(InputTensor(THEIRS, held.info), info.dtype)
        if rule.output != info:
            raise CannotFix(f"{info.name} is {held.info} in {self._label}, and must be {info}")
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
        for name in ALL_INDEXES:
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
        said = self._manifest.sidecars[damaged.name]
        if damaged.name in ALL_INDEXES:
            how = "made of the weight files' headers"
            for raw in indexes_of(self._holders, self._infos):
                if bytes_digest(raw) == said.digest:
                    return Mend(damaged, Content(raw), how, len(raw))
            if self._is_later:
                return Mend(damaged, Headers(), how, said.size)
        if self._truth is None:
            raise self._no_source()
        content = self._truth.sidecars.get(damaged.name)
        if content is None:
            return self._whole(damaged, said.size)
        if content.digest != said.digest:
            raise CannotFix(f"the file of this name in {self._label} has other bytes")
        return Mend(damaged, content, f"from {self._label}", content.nbytes)

    @property
    def _label(self) -> str:
        return "the file itself" if self._truth is None else self._truth.label

    def _no_source(self) -> CannotFix:
        """That the manifest names no source that can be fetched, and what the user can name."""
        manifest = self._manifest
        roles = [role for role in manifest.inputs if role not in manifest.origins]
        lacking = " and ".join(roles) or "what it was made from"
        why = f"weightsmith.json does not say where on the hub {lacking} can be had"
        if (given := source_of(manifest)) == COPY:
            return CannotFix(f"{why}: name a copy", make_again(manifest))
        named = f"name {given} or a copy"
        return CannotFix(f"{why}: {named}", fix_command(self._folder, manifest))


def _outputs(truth: Truth) -> Iterator[TensorInfo]:
    return (tensor.output for shard in truth.shards.values() for tensor in shard.tensors)

"""Make the right file beside a damaged one, prove it by the manifest, and let it take the name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.content import Content
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.checkpoint.opening import open_weight_file
from weightsmith.engine.exact_delta import encode_again
from weightsmith.engine.file_hashes import file_digest
from weightsmith.engine.inputs import Countdown
from weightsmith.engine.manifest import NAME as MANIFEST
from weightsmith.engine.manifest import Manifest
from weightsmith.engine.output import require_same
from weightsmith.engine.shard import begin, fill, read_back
from weightsmith.engine.spans import Buffers
from weightsmith.errors import DamagedInput, Mismatch
from weightsmith.formats.tensors import TensorInfo
from weightsmith.ops.fix.damage import DamagedFile, look_into
from weightsmith.ops.fix.decide import indexes_of
from weightsmith.ops.fix.hints import make_again
from weightsmith.ops.fix.mend import OURS, THEIRS, Encoding, Headers, Mend
from weightsmith.ops.fix.put_in_place import put_in_place
from weightsmith.ops.fix.report import CannotFix, FileFix
from weightsmith.plan.model import FilePlan, ShardPlan
from weightsmith.progress import Progress
from weightsmith.units import counted


@dataclass(frozen=True, slots=True)
class Workbench:
    """Where right files are made: a directory that can be renamed from into the folder."""

    folder: Path
    manifest: Manifest
    work: Path
    buffers: Sequence[Buffers]
    progress: Progress

    def carry_out(self, fix: Mend | FileFix) -> FileFix:
        """Make one file beside the old one, prove it, and let it take the name.

        Raises: InputChanged, if somebody wrote to the old one meanwhile; as `fix_files`.
        """
        if isinstance(fix, FileFix):
            return fix
        damaged = fix.damaged
        staged = self.work / f"new{damaged.path.suffix}"  # which says how the file is to be read
        try:
            self._make(fix, staged)
        except (CannotFix, DamagedInput, Mismatch) as error:
            # Whatever came out is not what the manifest says: the next file begins anew.
            staged.unlink(missing_ok=True)
            hint = make_again(self.manifest)
            return FileFix(damaged.name, damaged.why, "left", str(error), hint=hint)
        put_in_place(staged, damaged.path, damaged.before)
        return FileFix(damaged.name, damaged.why, "fixed", fix.how, fix.nbytes)

    def _make(self, fix: Mend, staged: Path) -> None:
        """Write the right file, synced and proved by the manifest's digests.

        Raises: CannotFix, if it comes out otherwise.
        """
        match fix.made_as:
            case Content() as content:
                self._copy(content, fix.damaged, staged)
            case Headers():
                self._copy(self._index(fix.damaged), fix.damaged, staged)
            case Encoding() as encoding:
                self._encode(encoding, fix, staged)
            case FilePlan() as plan:
                self._fill(plan, fix.inputs, staged)
                self._require_right(fix, staged)
            case plan:
                self._rebuild(plan, fix.inputs, staged)

    def _copy(self, content: Content, damaged: DamagedFile, staged: Path) -> None:
        """Write a small file, sync it, and read it back.

        Raises: CannotFix.
        """
        fs.write_durably(staged, content.pieces(), mode=content.mode)
        if damaged.name == MANIFEST:
            wanted = bytes_digest(self.manifest.to_bytes())
        else:
            wanted = self.manifest.sidecars[damaged.name].digest
        if Content(file=staged).digest != wanted:
            raise CannotFix("what it was to be replaced by has just changed")

    def _index(self, damaged: DamagedFile) -> Content:
        """The index, of the headers that the weight files have now.

        Raises: CannotFix; DamagedInput, SourceFault, if one of them cannot be read.
        """
        infos: dict[str, TensorInfo] = {}
        holders: dict[str, str] = {}
        for name in self.manifest.files:
            for tensor in open_weight_file(self.folder, name).tensors.values():
                infos[tensor.info.name] = tensor.info
                holders[tensor.info.name] = name
        for raw in indexes_of(holders, infos):
            if bytes_digest(raw) == self.manifest.sidecars[damaged.name].digest:
                return Content(raw)
        raise CannotFix("the weight files' headers do not give it")

    def _encode(self, encoding: Encoding, fix: Mend, staged: Path) -> None:
        """Code a file of an exact delta again. What is coded by class, and what could have been and
        was not, the record does not tell apart: both are tried.

        Raises: CannotFix.
        """
        plan = encoding.plan
        for coded in dict.fromkeys((plan.delta.coded, False)):
            tried = replace(plan, delta=replace(plan.delta, coded=coded))
            file = fs.create(staged)
            encode_again(
                tried,
                fix.inputs,
                fix.damaged.name,
                encoding.record,
                file,
                self.buffers,
                self.progress.advance,
            )
            file.sync()
            if not (wrong := self._wrong(fix, staged)):
                return
            staged.unlink()
        raise CannotFix(f"{fix.how} it comes out otherwise: {wrong}")

    def _rebuild(self, plan: ShardPlan, inputs: Mapping[str, Checkpoint], staged: Path) -> None:
        """Write a weight file of tensors whose digests are known.

        Raises: CannotFix, if a tensor comes out with another digest than the manifest's.
        """

        def require_right(made: Mapping[str, str]) -> None:
            wrong = [
                rule.output.name for rule in plan.tensors if made[rule.output.name] != rule.digest
            ]
            if wrong:
                source = inputs[THEIRS if THEIRS in inputs else OURS].label
                more = f" and {counted(len(wrong) - 1, 'other')}" if len(wrong) > 1 else ""
                said = f"{source} has other bytes for {wrong[0]}{more}"
                raise CannotFix(f"{said} than weightsmith.json states")

        self._fill(plan, inputs, staged, require_right)

    def _fill(
        self,
        plan: ShardPlan,
        inputs: Mapping[str, Checkpoint],
        staged: Path,
        look: Callable[[Mapping[str, str]], None] = lambda _: None,
    ) -> None:
        """Write a file by the engine, sync it, and read it back; `look` sees the digests first.

        Raises: VerificationFailed, if it is read back otherwise.
        """
        placed = replace(plan, name=staged.name)
        alone = any(checkpoint.sequential for checkpoint in inputs.values())
        file = begin(placed, staged.parent)
        made = fill(
            placed,
            inputs,
            file,
            self.buffers[:1] if alone else self.buffers,
            self.progress.advance,
            Countdown([placed], inputs),
            lambda *_: None,
            look=lambda *_: None,
            drop_cache=False,
        )
        look(made)
        file.sync()
        require_same(staged, read_back(staged, placed, self.buffers, lambda _: None), made)

    def _require_right(self, fix: Mend, staged: Path) -> None:
        """Raises: CannotFix."""
        if wrong := self._wrong(fix, staged):
            raise CannotFix(f"{fix.how} it comes out otherwise: {wrong}")

    def _wrong(self, fix: Mend, staged: Path) -> str:
        """How a file that was made whole is not what the manifest says; empty, if it is.

        Raises: DamagedInput, if it cannot be read as what its name says.
        """
        name, manifest = fix.damaged.name, self.manifest
        if name in manifest.sidecars:
            same = file_digest(staged) == manifest.sidecars[name].digest
            return "" if same else "it has other bytes than weightsmith.json states"
        return look_into(staged, manifest.files[name], manifest.tensors, self.buffers).why

"""What making any output has in common: work that is finished is recognised or kept, the rest is
done, and all of it is published at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from blake3 import blake3

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.table import SAFETENSORS
from weightsmith.engine.finished import damage, made_otherwise
from weightsmith.engine.inputs import File, require_unchanged
from weightsmith.engine.library_reader import require_readable
from weightsmith.engine.manifest import NAME as MANIFEST
from weightsmith.engine.manifest import Manifest, read_manifest
from weightsmith.engine.options import Bindings, Options
from weightsmith.engine.receipts import Receipt, kept_receipts, machine
from weightsmith.engine.spans import Buffers, digest_tensors
from weightsmith.engine.staging import Staging, is_vacant
from weightsmith.errors import (
    DamagedInput,
    InputChanged,
    OtherDeltaThere,
    PlanNotSaved,
    SourceFault,
    TargetExists,
    VerificationFailed,
    WeightsmithError,
)
from weightsmith.plan.model import Plan, ShardPlan, SidecarPlan
from weightsmith.progress import Progress
from weightsmith.units import counted


@dataclass(frozen=True, slots=True, repr=False)
class Outcome:
    """What a run did; its `repr` is a line, without the manifest's digests."""

    target: Path
    manifest: Manifest
    kept: int
    """Files that an earlier, interrupted run had finished."""
    already_done: bool
    """The target was there, finished by the same plan, and is sound."""
    doubts: tuple[str, ...] = field(default=(), kw_only=True)
    """What was made all the same, and a person should know: values that are no numbers."""

    def __repr__(self) -> str:
        """``Outcome(vicuna-7b-v1.1: 291 tensors in 3 files, fingerprint 0123abcd)``."""
        made = self.manifest
        what = f"{len(made.tensors)} tensors in {len(made.files)} files"
        done = ", already done" if self.already_done else ""
        name, mark = type(self).__name__, made.fingerprint[:8]
        return f"{name}({self.target}: {what}, fingerprint {mark}{done})"


def require_same(path: Path, found: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Compare the digests of a written file's tensors with those that they must have.

    Raises: VerificationFailed.
    """
    differing = [name for name in expected if found.get(name) != expected[name]]
    if differing:
        reason = counted(len(differing), "tensor")
        raise VerificationFailed(file=path, reason=reason, context=differing)


class Making(ABC):
    """An output in the making; its kinds differ in how files are made, opened and recorded."""

    def __init__(
        self, plan: Plan, bindings: Bindings, options: Options, progress: Progress
    ) -> None:
        """Nothing is touched yet."""
        self.plan = plan
        self.bindings = bindings
        self.options = options
        self.progress = progress
        self.staging = Staging(bindings.target)
        in_order = any(each.sequential for each in bindings.inputs.values())
        self.anywhere = False
        """Whether other machines may have made what receipts speak of."""
        self.doubts: tuple[str, ...] = ()
        self.buffers = [Buffers() for _ in range(1 if in_order else options.threads)]

    @abstractmethod
    def make(self, kept: Mapping[str, Receipt]) -> Manifest:
        """Make all files but the `kept`, and what lies beside them; returns the manifest to
        write.
        """

    @abstractmethod
    def open(self, directory: Path) -> Checkpoint:
        """Open a finished output, as its readers will."""

    @abstractmethod
    def expected(self, manifest: Manifest) -> Manifest:
        """What `manifest` must be where all that it vouches for was found to be so."""

    @abstractmethod
    def still_gives(self, shard: ShardPlan, made: Receipt, files: Collection[File]) -> bool:
        """Whether the input `files` still give what a shard was made of them."""

    @abstractmethod
    def gives(self, finished: Manifest) -> bool:
        """Whether the inputs give what a finished output holds, as its manifest has it.

        Its plan does not tell: that knows headers of the inputs, and not their values.
        """

    def kept(self) -> Mapping[str, Receipt]:
        """The receipts of an earlier run that still hold, by file.

        Raises: StagingOfAnotherPlan.
        """
        return kept_receipts(
            self.plan, self.bindings, self.staging, self.still_gives, anywhere=self.anywhere
        )

    def run(self) -> Outcome:
        """Make the output and publish it under its final name, whole or not at all.

        The same plan again continues what was interrupted, and keeps what was finished.
        Raises: InTheWay for a target or staging that is not this plan's; DiskFull;
        VerificationFailed; InputChanged; whatever reading the inputs meets.
        """
        if self.options.executor != "threads" and not self.anywhere:
            raise PlanNotSaved(reason=f"{self.plan.verb} works in one process")
        self.staging.recover()
        seen = _manifest_state(self.bindings.target)
        if (finished := self._finished()) is not None:
            return self._already_done(finished)
        with self.staging.held():
            # Another run of this plan may have published since we looked, and let go of the lock.
            published = _manifest_state(self.bindings.target) != seen
            finished = self._finished() if published else None
            if finished is None:
                return self._make_and_publish()
        return self._already_done(finished)

    def _already_done(self, finished: Manifest) -> Outcome:
        self.staging.discard_leftovers(self.plan)
        total = len(self.plan.shards)
        return Outcome(self.bindings.target, finished, kept=total, already_done=True)

    def _make_and_publish(self) -> Outcome:
        """Do the work, while staging is held."""
        sources = [each.directory for each in self.bindings.inputs.values()]
        self.staging.claim(self.plan, restart=self.options.restart, sources=sources)
        kept = self.kept()
        self.staging.keep(kept)
        if kept:
            total = len(self.plan.shards)
            self.progress.note(
                f"continuing an earlier run: {len(kept)} of {total} files are finished"
            )
        manifest, output = self.make(kept), self.staging.output
        for name in manifest.files:
            if name.endswith(SAFETENSORS) and (unread := require_readable(output / name)):
                self.progress.note(unread)
        self.staging.write(MANIFEST, manifest.to_bytes())
        fs.sync_directory(self.staging.output)
        try:
            self.staging.publish(overwrite=self.options.overwrite)
        except TargetExists:
            # Without locks another run of this plan may have been here, and was faster.
            if (finished := self._finished()) is None:
                raise
            return self._already_done(finished)
        return Outcome(
            self.bindings.target,
            manifest,
            kept=len(kept),
            already_done=False,
            doubts=self.doubts,
        )

    def write_beside(self, index: Mapping[str, bytes]) -> None:
        """Make the sidecars and the index, its content by its name, durable in the output.

        Raises: InputChanged, if a sidecar is no longer what the plan says.
        """
        output = self.staging.output
        for each in self.plan.sidecars:
            self._write_sidecar(each)
        for name, raw in index.items():
            self.staging.write(name, raw)
        for folder in sorted({(output / each.name).parent for each in self.plan.sidecars}):
            fs.sync_directory(folder)
        fs.sync_directory(output)

    def _write_sidecar(self, plan: SidecarPlan) -> None:
        """Copy it in pieces, which are hashed on the way: it may have changed since it was planned.

        Raises: InputChanged.
        """
        content, found = self.bindings.sidecars[plan.name], blake3()

        def hashed() -> Iterator[bytes | memoryview]:
            for piece in content.pieces():
                found.update(piece)
                yield piece

        self.staging.write(plan.name, hashed(), mode=content.mode)
        if found.hexdigest() != plan.digest:
            raise InputChanged(file=content.file or plan.name)

    def require_unchanged(self, made: Mapping[str, Receipt]) -> None:
        """Hold the inputs against what they were; `made` are all shards that there are so far.

        Raises: InputChanged.
        """

        def still_give(files: Collection[File]) -> bool:
            names = ", ".join(sorted({name for _, name in files}))
            self.progress.note(f"{names} changed in mode, owner or links: reading it again")
            shards = (shard for shard in self.plan.shards if shard.name in made)
            return all(self.still_gives(shard, made[shard.name], files) for shard in shards)

        require_unchanged(self.bindings.inputs, still_give)

    def digests(self, checkpoint: Checkpoint, names: Iterable[str]) -> dict[str, str]:
        """Of its tensors of these names."""
        infos = [checkpoint.tensors[name].info for name in names]
        return digest_tensors(infos, checkpoint.read_into, self.buffers, self.progress.advance)

    def _finished(self) -> Manifest | None:
        """The manifest of a sound target of the same plan; None where the run has work to do.

        Raises: TargetExists, if anything else is in the way and may not be replaced.
        """
        target = self.bindings.target
        if is_vacant(target):
            return None
        try:
            manifest = read_manifest(target) if target.is_dir() else None
        except (DamagedInput, SourceFault):
            manifest = None
        others: list[str] = []
        if not target.is_dir():
            reason = "it is no directory"
        elif manifest is None:
            reason = "nothing in it says that weightsmith finished it"
        elif otherwise := made_otherwise(self.plan, self.bindings, manifest):
            reason = otherwise
        else:
            problems = self._damage(manifest)
            if not problems and self.gives(manifest):
                return manifest
            reason, others = "it was made of inputs with other values", problems[1:]
            if problems:
                reason = f"it is damaged: {problems[0]}"
            elif machine(self.plan):
                reason = f"{reason}, or on another type of processor"
        if self.options.overwrite:
            return None
        if manifest is not None and _is_other_delta(self.plan, manifest):
            # Its name says a delta is there already; which one decides whether it may go.
            raise OtherDeltaThere(target=target, reason=reason, fingerprint=manifest.fingerprint)
        raise TargetExists(target=target, reason=reason, context=others)

    def _damage(self, manifest: Manifest) -> list[str]:
        """What is wrong with the finished target, as sentences; reads all of it."""
        target = self.bindings.target
        try:
            checkpoint = self.open(target)
            self.progress.begin("checking", checkpoint.nbytes)
            problems = damage(checkpoint, manifest, self.digests(checkpoint, checkpoint.tensors))
            if not problems:
                expected = replace(self.expected(manifest), made_by=manifest.made_by)
                if (target / MANIFEST).read_bytes() != expected.to_bytes():
                    problems.append(f"{MANIFEST} was changed")
        except WeightsmithError as error:
            return [str(error)]
        return problems


def _is_other_delta(plan: Plan, manifest: Manifest) -> bool:
    """Whether a delta is to be made where another plan has made one."""
    return plan.verb == manifest.verb == "make-delta" and plan.digest != manifest.plan


def _manifest_state(target: Path) -> fs.Identity | None:
    """The identity of a finished target's manifest; None where there is none."""
    try:
        return fs.identity_of((target / MANIFEST).stat())
    except OSError:
        return None

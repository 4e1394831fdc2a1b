"""Run a plan: fill each shard, sync it, read it back, leave a receipt; then publish all at once."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.layout import INDEXES
from weightsmith.checkpoint.opening import open_checkpoint
from weightsmith.engine.executors.executor import Executor
from weightsmith.engine.executors.local import THREADS, nbytes_to_do, require_whole
from weightsmith.engine.file_outputs import digest_decoded, manifest_of_files, open_output
from weightsmith.engine.finite import require_finite, sentences
from weightsmith.engine.inputs import File, files_of
from weightsmith.engine.manifest import Manifest, manifest_of
from weightsmith.engine.options import Bindings, Options
from weightsmith.engine.output import Making, Outcome
from weightsmith.engine.receipts import Receipt
from weightsmith.engine.shard import remake
from weightsmith.formats.index import build_index
from weightsmith.plan.model import Plan, ShardPlan
from weightsmith.progress import SILENCE, Progress
from weightsmith.units import counted

__all__ = ["ModelMaking", "Outcome", "run"]

INDEX: Final = INDEXES[0]


def run(
    plan: Plan,
    bindings: Bindings,
    options: Options,
    progress: Progress = SILENCE,
    executor: Executor = THREADS,
) -> Outcome:
    """Make the planned output and publish it under its final name, whole or not at all.

    Raises: as `Making.run`.
    """
    return ModelMaking(plan, bindings, options, progress, executor).run()


class ModelMaking(Making):
    """A model, or the files that a release of whole files decodes to."""

    def __init__(
        self,
        plan: Plan,
        bindings: Bindings,
        options: Options,
        progress: Progress,
        executor: Executor = THREADS,
    ) -> None:
        """Nothing is touched yet; `executor` makes the shards that are missing."""
        super().__init__(plan, bindings, options, progress)
        self.anywhere = executor.anywhere
        self._executor = executor

    def make(self, kept: Mapping[str, Receipt]) -> Manifest:
        """Fill the shards, read them back, and write what lies beside them."""
        digests = self._make_shards(kept)
        self.write_beside(_index(self.plan))
        output = self.staging.output
        if self.plan.makes_files:
            digests = digest_decoded(output, self.buffers, self.progress)
        return manifest_of_run(self.plan, digests, output)

    def open(self, directory: Path) -> Checkpoint:
        """As a model, or an adapter."""
        if self.plan.makes_files:
            return open_output(directory)
        if self.plan.makes_adapter:
            return open_checkpoint(directory, kind="adapter")
        return open_checkpoint(directory)

    def expected(self, manifest: Manifest) -> Manifest:
        """All of it follows from the plan and the tensors' digests."""
        return manifest_of_run(self.plan, manifest.tensors, self.bindings.target)

    def still_gives(self, shard: ShardPlan, made: Receipt, files: Collection[File]) -> bool:
        """Make the tensors that come from these files anew, and compare their digests."""
        inputs = self.bindings.inputs
        tensors = [each for each in shard.tensors if not files_of(each, inputs).isdisjoint(files)]
        found = remake(tensors, inputs, self.buffers)
        return all(made.digests[name] == digest for name, digest in found.items())

    def gives(self, finished: Manifest) -> bool:
        """Make the tensors anew, and compare their digests; those whose digest the plan knows, and
        what comes from a commit of the hub or an object store alone, cannot be others. What would
        have to be fetched for it is not compared, and that is said.
        """
        if self.plan.makes_files:
            return True
        inputs = self.bindings.inputs
        near = {role for role, each in inputs.items() if not each.is_pinned}
        tensors = [
            each
            for each in self.plan.tensors
            if not each.digest and any(read.role in near for read in each.inputs)
        ]
        far = {
            role
            for role, each in inputs.items()
            if any(each.is_far(file.name) for file in each.files)
        }
        here = [each for each in tensors if far.isdisjoint(read.role for read in each.inputs)]
        if len(here) < len(tensors):
            count = counted(len(tensors) - len(here), "tensor")
            roles = " and ".join(inputs[role].label for role in sorted(far))
            self.progress.note(
                f"not compared with its inputs: {count}, for {roles} would have to be fetched"
            )
        self.progress.begin("comparing with its inputs", sum(t.output.nbytes for t in here))
        found = remake(here, inputs, self.buffers, self.progress.advance)
        return all(finished.tensors.get(name) == digest for name, digest in found.items())

    def require_finite(self, made: Receipt) -> None:
        """Raises: NotFinite."""
        if not self.options.allow_nonfinite:
            require_finite(made.nonfinite, self.bindings.finite, self.bindings.inputs)

    def require_kept(self, shard: ShardPlan, made: Receipt) -> None:
        """Hold a finished file against its receipt, as far as the options say.

        Raises: as `require_whole`.
        """
        verify, output = self.options.verify, self.staging.output
        require_whole(output, shard, made.digests, verify, self.buffers, self.progress)

    def _make_shards(self, kept: Mapping[str, Receipt]) -> dict[str, str]:
        """Check every shard that is kept and have the others made; returns the digests of all
        tensors.
        """
        plan, verify, output = self.plan, self.options.verify, self.staging.output
        total = sum(nbytes_to_do(each, verify, kept=each.name in kept) for each in plan.shards)
        self.progress.begin("writing and checking" if verify != "no" else "writing", total)
        for shard in plan.shards:
            if shard.name in kept:
                made = kept[shard.name]
                self.staging.synced(shard.name, (output / shard.name).lstat())
                self.require_kept(shard, made)
                self.require_finite(made)
        missing = [n for n, shard in enumerate(plan.shards) if shard.name not in kept]
        receipts = {**kept, **self._executor.make(self, missing)}
        in_order = [receipts[shard.name] for shard in plan.shards]
        found = {name: each for made in in_order for name, each in made.nonfinite.items()}
        self.doubts = tuple(sentences(found, self.bindings.inputs))
        for doubt in self.doubts:
            self.progress.note(doubt)
        return {name: each for made in in_order for name, each in made.digests.items()}


def manifest_of_run(plan: Plan, digests: Mapping[str, str], directory: Path) -> Manifest:
    """The manifest of the whole output in `directory`; `digests` are those of its tensors."""
    if plan.makes_files:
        return manifest_of_files(plan, digests, directory)
    return manifest_of(plan, digests, _index(plan))


def _index(plan: Plan) -> dict[str, bytes]:
    """The content of the index by its name; nothing where one file holds all."""
    given = any(each.name == INDEX for each in plan.sidecars)
    if len(plan.shards) == 1 or plan.makes_files or given:
        return {}
    weight_map = {t.output.name: s.name for s in plan.shards for t in s.tensors}
    nbytes = sum(shard.data_nbytes for shard in plan.shards)
    return {INDEX: build_index(weight_map, nbytes, sum(t.output.numel for t in plan.tensors))}

"""Run a plan: fill each shard, sync it, read it back, leave a receipt; then publish all at once."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint, open_checkpoint
from weightsmith.engine.bindings import Bindings, Options
from weightsmith.engine.decoded import (
    digest_decoded,
    manifest_of_files,
    open_output,
    require_published,
)
from weightsmith.engine.expected import require_expected
from weightsmith.engine.front import Front, Wait, no_wait
from weightsmith.engine.inputs import Countdown, require_unchanged
from weightsmith.engine.making import Background, Making, Outcome, require_same
from weightsmith.engine.manifest import Manifest, manifest_of
from weightsmith.engine.progress import SILENCE, Progress
from weightsmith.engine.receipts import Receipt, machine, made_from
from weightsmith.engine.shard import fill, read_back
from weightsmith.engine.spans import Buffers
from weightsmith.formats.index import build_index
from weightsmith.plan.model import FilePlan, Plan, RestoredPlan, ShardPlan

__all__ = ["Outcome", "run", "run_shard"]

INDEX: Final = "model.safetensors.index.json"


def run(plan: Plan, bindings: Bindings, options: Options, progress: Progress = SILENCE) -> Outcome:
    """Make the planned output and publish it under its final name, whole or not at all.

    Raises: as `Making.run`.
    """
    return _Model(plan, bindings, options, progress).run()


def run_shard(
    plan: Plan,
    bindings: Bindings,
    number: int,
    output: Path,
    options: Options,
    buffers: Sequence[Buffers],
    countdown: Countdown,
    front: Front,
    progress: Progress,
) -> tuple[fs.PositionedFile, dict[str, str]]:
    """Write shard `number` into the directory `output`, not yet synced; pure and idempotent.

    Returns the open file and the digests of its tensors by name.
    """
    shard = plan.shards[number]
    file = fs.create(output / shard.name)
    drop_cache = options.low_cpu_mem
    digests = fill(
        shard,
        bindings.inputs,
        file,
        buffers,
        progress.advance,
        countdown,
        front,
        drop_cache=drop_cache,
    )
    return file, digests


class _Model(Making):
    """A model, or the files that a release of whole files decodes to."""

    def make(self, kept: Mapping[str, Receipt]) -> Manifest:
        """Fill the shards, read them back, and write what lies beside them."""
        digests = self._make_shards(kept)
        self.write_beside(_index(self.plan))
        output = self.staging.output
        if self.plan.makes_files:
            digests = digest_decoded(output, self.buffers, self.progress)
        return _manifest(self.plan, digests, output)

    def open(self, directory: Path) -> Checkpoint:
        """As a model."""
        return open_output(directory) if self.plan.makes_files else open_checkpoint(directory)

    def expected(self, manifest: Manifest) -> Manifest:
        """All of it follows from the plan and the tensors' digests."""
        return _manifest(self.plan, manifest.tensors, self.bindings.target)

    def _make_shards(self, kept: Mapping[str, Receipt]) -> dict[str, str]:
        """Make every shard that is not kept; returns the digests of all tensors."""
        plan, inputs, options = self.plan, self.bindings.inputs, self.options
        total = sum(_nbytes_to_do(s, options, kept=s.name in kept) for s in plan.shards)
        self.progress.begin("writing and checking" if options.verify != "no" else "writing", total)
        digests: dict[str, str] = {}
        countdown = Countdown([shard for shard in plan.shards if shard.name not in kept], inputs)
        with Background() as background:
            for number, shard in enumerate(plan.shards):
                if shard.name in kept:
                    self._check(shard, kept[shard.name].digests, self.buffers)
                    digests |= kept[shard.name].digests
                    continue
                identity = made_from(shard, inputs)
                front = Front()
                restored = isinstance(shard, RestoredPlan)  # one hash, one thread: in background
                if restored and options.verify != "disk":
                    check = partial(self._check, shard, {}, [Buffers()], front.wait)
                    background.submit(check)
                try:
                    file, made = run_shard(
                        plan,
                        self.bindings,
                        number,
                        self.staging.output,
                        options,
                        self.buffers,
                        countdown,
                        front,
                        self.progress,
                    )
                finally:
                    front.close()
                require_expected(shard, made, inputs, self.buffers)
                background.sync(file, drop_cache=options.low_cpu_mem or options.verify == "disk")
                if options.verify == "disk":
                    background.wait()
                if not restored:
                    self._check(shard, made, self.buffers)
                elif options.verify == "disk":
                    background.submit(partial(self._check, shard, made, [Buffers()]))
                require_unchanged(inputs)
                receipt = Receipt(
                    plan.digest, shard.name, shard.nbytes, machine(plan), identity, made
                )
                background.leave(receipt, self.staging.receipts)
                digests |= made
            background.wait()
        return digests

    def _check(
        self,
        shard: ShardPlan,
        expected: Mapping[str, str],
        buffers: Sequence[Buffers],
        wait: Wait = no_wait,
    ) -> None:
        """Read a shard back and compare; with the release's own hashes, however little is verified.

        Raises: VerificationFailed, DecodedWrong.
        """
        path, advance = self.staging.output / shard.name, self.progress.advance
        if _is_read_back(shard, self.options):
            require_same(path, read_back(path, shard, buffers, advance), expected)
        if isinstance(shard, FilePlan | RestoredPlan) and shard.published:
            require_published(path, shard, buffers, advance, wait)


def _nbytes_to_do(shard: ShardPlan, options: Options, *, kept: bool) -> int:
    """What filling a shard, reading it back and hashing it goes through."""
    written = 0 if kept else shard.data_nbytes
    read = shard.data_nbytes if _is_read_back(shard, options) else 0
    hashed = isinstance(shard, FilePlan | RestoredPlan) and shard.published
    return written + read + (shard.nbytes if hashed else 0)


def _is_read_back(shard: ShardPlan, options: Options) -> bool:
    """Whether its tensors are digested again; the hash of a restored file says it all."""
    return options.verify != "no" and not isinstance(shard, RestoredPlan)


def _manifest(plan: Plan, digests: Mapping[str, str], directory: Path) -> Manifest:
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

"""Run a plan: fill each shard, sync it, read it back, leave a receipt; then publish all at once."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.layout import INDEXES
from weightsmith.checkpoint.opening import open_checkpoint
from weightsmith.engine.expected import blamed, require_expected, require_file
from weightsmith.engine.file_outputs import (
    digest_decoded,
    manifest_of_files,
    open_output,
)
from weightsmith.engine.finite import FiniteWatch, NonFinite, require_finite, sentences
from weightsmith.engine.inputs import Countdown, File, files_of
from weightsmith.engine.manifest import Manifest, manifest_of
from weightsmith.engine.options import Bindings, Options
from weightsmith.engine.output import Background, Making, Outcome, require_same
from weightsmith.engine.read_back import Follower, Front, Trail
from weightsmith.engine.receipts import Receipt, machine, made_from
from weightsmith.engine.shard import begin, fill, read_back, remake, reopen
from weightsmith.engine.spans import Buffers
from weightsmith.formats.index import build_index
from weightsmith.plan.model import Plan, ShardPlan
from weightsmith.progress import SILENCE, Progress

__all__ = ["Outcome", "run", "run_shard"]

INDEX: Final = INDEXES[0]


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
    background: Background,
    progress: Progress,
    watch: FiniteWatch,
) -> tuple[fs.PositionedFile, dict[str, str]]:
    """Write shard `number` into the directory `output`, not yet synced; pure and idempotent.

    Returns the open file and the digests of its tensors by name. What was written is checked: it
    is read back here, or hashed in the background where the release gives a hash of the file;
    where the medium is to say what it holds, that is left until it is synced. `watch` sees what is
    made, and may find values that are no numbers.
    Raises: VerificationFailed; WrongBase, DeltaInvalid.
    """
    shard, verify, advance = plan.shards[number], options.verify, progress.advance
    file = begin(shard, output)
    filled = partial(
        fill,
        shard,
        bindings.inputs,
        file,
        buffers,
        advance,
        countdown,
        look=watch.look,
        drop_cache=options.low_cpu_mem,
    )
    if shard.published and verify != "disk":
        with Front(len(shard.header)) as front:
            follower = Follower(file, shard.nbytes, front)
            due = {each.output.name: each.digest for each in shard.tensors if each.digest}
            background.submit(partial(require_file, follower, shard, due, Buffers(), advance))
            with blamed(shard.tensors, bindings.inputs, buffers):
                digests = filled(front.follow)
    else:
        trail = Trail(file, advance, reads=verify == "cache")
        with blamed(shard.tensors, bindings.inputs, buffers):
            digests = filled(trail.follow)
        trail.finish(buffers)
    if verify == "cache" or shard.published:
        reopen(file.path, shard)
    require_expected(shard, digests, bindings.inputs, buffers)
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
        """As a model, or an adapter."""
        if self.plan.makes_files:
            return open_output(directory)
        if self.plan.makes_adapter:
            return open_checkpoint(directory, kind="adapter")
        return open_checkpoint(directory)

    def expected(self, manifest: Manifest) -> Manifest:
        """All of it follows from the plan and the tensors' digests."""
        return _manifest(self.plan, manifest.tensors, self.bindings.target)

    def still_gives(self, shard: ShardPlan, made: Receipt, files: Collection[File]) -> bool:
        """Make the tensors that come from these files anew, and compare their digests."""
        inputs = self.bindings.inputs
        tensors = [each for each in shard.tensors if not files_of(each, inputs).isdisjoint(files)]
        found = remake(tensors, inputs, self.buffers)
        return all(made.digests[name] == digest for name, digest in found.items())

    def _make_shards(self, kept: Mapping[str, Receipt]) -> dict[str, str]:
        """Make every shard that is not kept; returns the digests of all tensors."""
        plan, inputs, options = self.plan, self.bindings.inputs, self.options
        total = sum(_nbytes_to_do(s, options, kept=s.name in kept) for s in plan.shards)
        self.progress.begin("writing and checking" if options.verify != "no" else "writing", total)
        receipts: dict[str, Receipt] = {}
        countdown = Countdown([shard for shard in plan.shards if shard.name not in kept], inputs)
        with Background() as background:
            for number, shard in enumerate(plan.shards):
                if shard.name in kept:
                    made = kept[shard.name].digests
                    self.staging.synced(shard.name, (self.staging.output / shard.name).lstat())
                    self._require_whole(shard, made)
                    receipts[shard.name] = kept[shard.name]
                    self._require_finite(kept[shard.name].nonfinite)
                    continue
                identity, watch = made_from(shard, inputs), FiniteWatch()
                file, made = run_shard(
                    plan,
                    self.bindings,
                    number,
                    self.staging.output,
                    options,
                    self.buffers,
                    countdown,
                    background,
                    self.progress,
                    watch,
                )
                self._require_finite(watch.found)
                background.sync(file, self.staging, drop_cache=True)
                if options.verify == "disk":
                    # Only what is synced leaves the page cache to the last page, and on overlayfs
                    # at all.
                    background.wait()
                    self._require_whole(shard, made)
                receipt = Receipt(
                    plan.digest,
                    shard.name,
                    shard.nbytes,
                    machine(plan),
                    identity,
                    made,
                    nonfinite=watch.found,
                )
                receipts[shard.name] = receipt
                self.require_unchanged(receipts)
                background.leave(receipt, self.staging.receipts)
            background.wait()
        found = {name: each for made in receipts.values() for name, each in made.nonfinite.items()}
        self.doubts = tuple(sentences(found, inputs))
        for doubt in self.doubts:
            self.progress.note(doubt)
        return {name: each for made in receipts.values() for name, each in made.digests.items()}

    def _require_finite(self, found: NonFinite) -> None:
        """Raises: NotFinite."""
        if not self.options.allow_nonfinite:
            require_finite(found, self.bindings.finite, self.bindings.inputs)

    def _require_whole(self, shard: ShardPlan, digests: Mapping[str, str]) -> None:
        """Hold a file that is whole and synced against its release's hashes, or its tensors'
        digests.

        Raises: VerificationFailed; DeltaInvalid, DecodedWrong.
        """
        path, verify = self.staging.output / shard.name, self.options.verify
        advance = self.progress.advance
        file = fs.open_for_reading(path)
        if verify == "disk":
            file.drop_cache()
        if shard.published:
            require_file(file, shard, digests, self.buffers[0], advance)
        elif verify != "no":
            require_same(path, read_back(path, shard, self.buffers, advance), digests)


def _nbytes_to_do(shard: ShardPlan, options: Options, *, kept: bool) -> int:
    """What filling a shard and reading it back goes through; the hash of a whole file, where the
    release gives one, says it all, however little is to be verified.
    """
    written = 0 if kept else shard.data_nbytes
    if shard.published:
        return written + shard.nbytes
    return written + (shard.data_nbytes if options.verify != "no" else 0)


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

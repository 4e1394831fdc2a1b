"""Find a damaged or lost manifest again, where a source proves what it must be."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from weightsmith.checkpoint.opening import open_weight_file
from weightsmith.checkpoint.whole_files import WholeFiles
from weightsmith.engine.file_outputs import digest_decoded
from weightsmith.engine.manifest import NAME as MANIFEST
from weightsmith.engine.manifest import Manifest, parse_manifest
from weightsmith.engine.run import manifest_of_run
from weightsmith.engine.shard import remake
from weightsmith.engine.spans import Buffers, digest_tensors
from weightsmith.errors import SourceFault, WeightsmithError
from weightsmith.ops.fix.damage import Damage, find_damage
from weightsmith.ops.fix.decide import ALL_INDEXES
from weightsmith.ops.fix.truth import Truth
from weightsmith.ops.job import Job
from weightsmith.progress import Progress

_OWN_DIGEST: Final = re.compile(rb'^ "own_digest": "([0-9a-f]{64})"', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Recovered:
    """A manifest that is proved, and the source that proves it."""

    manifest: Manifest
    truth: Truth
    damage: Damage
    """What in the folder is not what the manifest says."""


def recover(
    folder: Path,
    raw: bytes,
    here: Manifest | None,
    truths: Iterable[Truth],
    buffers: Sequence[Buffers],
    progress: Progress,
) -> Recovered | tuple[str, ...]:
    """The manifest that a folder must have, by the first source that proves it; else the names of
    files that speak against the last one that was possible.

    A source proposes one: that of a copy, or what a command would write that made the folder of it.
    It is proved if it has the digest that the damaged manifest (`raw`; `here`, as far as it can be
    read) states of itself. Else the folder's files must prove it: at least one weight file is what
    it says, and none that can be read is another. So neither a fine-tune is taken for a damaged
    copy of its base, nor a file for damaged that somebody changed.
    Memory: as `remake`, for what has to be made to know its digests.
    """
    stated = {found.decode() for found in _OWN_DIGEST.findall(raw)}
    shown: Recovered | None = None
    against: tuple[str, ...] = ()
    for truth in truths:
        found = _proposed(folder, truth, buffers, progress)
        if found is None:
            continue
        variants = [found]
        if here is not None and truth.job is not None:  # an earlier version may have made it
            variants.append(replace(found, made_by=here.made_by))
        written = [*map(_written, variants)]
        is_stated = [each for each in written if each.own_digest in stated]
        proposed = (is_stated or written)[0]
        damage = find_damage(folder, proposed, buffers, lambda _: None)
        recovered = Recovered(proposed, truth, damage)
        if is_stated:
            return recovered
        others = _others(damage)
        if not others and len(damage.weights) < len(proposed.files):
            shown = shown or recovered
            if not stated:  # no later one can be proved better
                break
        against = others
    return shown or against


def _others(damage: Damage) -> tuple[str, ...]:
    """Files that can be read and are others; an index follows from the weight files."""
    weights = [each.name for each in damage.weights if each.is_readable]
    small = [each.name for each in damage.sidecars if each.before and each.name not in ALL_INDEXES]
    return (*weights, *small)


def _written(manifest: Manifest) -> Manifest:
    """The same, with its own digest."""
    return parse_manifest(manifest.to_bytes(), Path(MANIFEST))


def _proposed(
    folder: Path, truth: Truth, buffers: Sequence[Buffers], progress: Progress
) -> Manifest | None:
    """The manifest that a source gives, if the folder may be the output of which it is."""
    job = truth.job
    if job is None:
        return truth.manifest
    alone = any(each.sequential for each in job.bindings.inputs.values())
    buffers = buffers[:1] if alone else buffers
    if job.plan.makes_files:
        return _decoded(folder, job, buffers, progress)
    if not _may_have_made(job, folder):
        return None
    digests = {rule.output.name: rule.digest for rule in job.plan.tensors}
    if not all(digests.values()):
        digests = _made(job, buffers, progress)
    return manifest_of_run(job.plan, digests, folder)


def _made(job: Job, buffers: Sequence[Buffers], progress: Progress) -> dict[str, str]:
    progress.begin("making again", sum(each.output.nbytes for each in job.plan.tensors))
    return remake(job.plan.tensors, job.bindings.inputs, buffers)


def _decoded(
    folder: Path, job: Job, buffers: Sequence[Buffers], progress: Progress
) -> Manifest | None:
    """That of a decoded release, if every file is there as it decodes."""
    try:
        there = WholeFiles(folder, [shard.name for shard in job.plan.shards], str(folder))
    except SourceFault:
        return None
    infos = [tensor.info for tensor in there.tensors.values()]
    if digest_tensors(infos, there.read_into, buffers, lambda _: None) != _made(
        job, buffers, progress
    ):
        return None
    return manifest_of_run(job.plan, digest_decoded(folder, buffers, progress), folder)


def _may_have_made(job: Job, folder: Path) -> bool:
    """Whether some weight file of the folder has the planned header, and none another."""
    same = False
    for shard in job.plan.shards:
        try:
            opened = open_weight_file(folder, shard.name)
            if opened.header(shard.name) != shard.header:
                return False
            same = True
        except WeightsmithError:
            continue
    return same

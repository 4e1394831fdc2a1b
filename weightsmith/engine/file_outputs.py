"""Outputs that file rules make: held against published hashes, opened, and recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.opening import open_checkpoint
from weightsmith.checkpoint.store import LocalStore
from weightsmith.engine.file_hashes import file_digest, hash_file, rest_digest
from weightsmith.engine.manifest import File, Manifest, Sidecar, manifest_of
from weightsmith.engine.spans import Advance, Buffers, digest_tensors
from weightsmith.errors import DecodedUnreadable, DecodedWrong, NoWeights, WeightsmithError
from weightsmith.plan.model import Plan, ShardPlan
from weightsmith.progress import Progress


def require_published(file: fs.Readable, plan: ShardPlan, own: Buffers, advance: Advance) -> None:
    """Hold a file against the hashes that its release gives for it.

    Raises: DecodedWrong.
    """
    found = hash_file(file, plan.published.keys(), own, advance)
    for algorithm, digest in plan.published.items():
        if found[algorithm] != digest:
            raise DecodedWrong(file=plan.name, algorithm=algorithm)


def open_output(directory: Path) -> Checkpoint:
    """The decoded files as a checkpoint.

    It has no tensors where no file is named as weights are: some releases are quantised models in
    formats of their own.

    Raises: DamagedInput, SourceFault, if they are named as weights and are none.
    """
    try:
        return open_checkpoint(directory)
    except NoWeights:
        return Checkpoint(
            label=str(directory),
            directory=directory,
            store=LocalStore(directory),
            files=(),
            tensors={},
            sidecars=(),
            notes=(),
        )


def digest_decoded(
    directory: Path, buffers: Sequence[Buffers], progress: Progress
) -> dict[str, str]:
    """The digests of all tensors in the decoded files, by name.

    Raises: DecodedUnreadable, if the files are not what they are named as.
    """
    try:
        checkpoint = open_output(directory)
    except WeightsmithError as error:
        raise DecodedUnreadable(reason=error, context=error.context) from error
    progress.begin("digesting", checkpoint.nbytes)
    infos = [tensor.info for tensor in checkpoint.tensors.values()]
    return digest_tensors(infos, checkpoint.read_into, buffers, progress.advance)


def manifest_of_files(plan: Plan, digests: Mapping[str, str], directory: Path) -> Manifest:
    """The manifest of decoded files: those that hold tensors, and, whole, all others."""
    weights = {file.name: file for file in open_output(directory).files}
    others = [shard for shard in plan.shards if shard.name not in weights]
    return replace(
        manifest_of(plan, digests, {}),
        files={
            name: File(file.size, file.header_digest, rest_digest(directory / name))
            for name, file in weights.items()
        },
        sidecars={s.name: Sidecar(s.nbytes, file_digest(directory / s.name)) for s in others},
    )

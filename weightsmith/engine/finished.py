"""Check a finished output against its own manifest."""

from collections.abc import Sequence
from pathlib import Path

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import MAX_SIDECAR_NBYTES, open_checkpoint
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.engine.manifest import Manifest
from weightsmith.engine.spans import Advance, Buffers, digest_tensors
from weightsmith.errors import WeightsmithError


def damage(
    directory: Path, manifest: Manifest, buffers: Sequence[Buffers], advance: Advance
) -> list[str]:
    """Every way in which a finished output is not what its manifest says, as sentences.

    Reads every byte of it. Memory: one span a worker.
    """
    try:
        checkpoint = open_checkpoint(directory)
    except WeightsmithError as error:
        return [str(error)]
    problems = []
    files = {file.name: file for file in checkpoint.files}
    for name, expected in manifest.files.items():
        if name not in files:
            problems.append(f"{name} is missing")
        elif (files[name].size, files[name].header_digest) != (
            expected.size,
            expected.header_digest,
        ):
            problems.append(f"{name}: size or header differ")
    for name, sidecar in manifest.sidecars.items():
        try:
            content = fs.read_small(directory / name, MAX_SIDECAR_NBYTES)
        except WeightsmithError as error:
            problems.append(str(error))
            continue
        if bytes_digest(content) != sidecar.digest:
            problems.append(f"{name} was changed")
    infos = [tensor.info for tensor in checkpoint.tensors.values()]
    digests = digest_tensors(infos, checkpoint.read_into, buffers, advance)
    names = sorted(digests.keys() | manifest.tensors.keys())
    problems += [
        f"tensor {name} differs"
        for name in names
        if digests.get(name) != manifest.tensors.get(name)
    ]
    return problems

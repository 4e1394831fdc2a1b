"""Hold a finished output against its own manifest."""

from collections.abc import Mapping

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import MAX_SIDECAR_NBYTES, Checkpoint
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.engine.manifest import Manifest
from weightsmith.errors import WeightsmithError


def damage(checkpoint: Checkpoint, manifest: Manifest, digests: Mapping[str, str]) -> list[str]:
    """Every way in which an output is not what its manifest says, as sentences.

    `digests` are those of its tensors, read just now.
    """
    problems = []
    files = {file.name: (file.size, file.header_digest) for file in checkpoint.files}
    for name, file in manifest.files.items():
        if name not in files:
            problems.append(f"{name} is missing")
        elif files[name] != (file.size, file.header_digest):
            problems.append(f"{name}: size or header differ")
    for name, sidecar in manifest.sidecars.items():
        try:
            content = fs.read_small(checkpoint.directory / name, MAX_SIDECAR_NBYTES)
        except WeightsmithError as error:
            problems.append(str(error))
            continue
        if bytes_digest(content) != sidecar.digest:
            problems.append(f"{name} was changed")
    return problems + [
        f"tensor {name} differs"
        for name in sorted(digests.keys() | manifest.tensors.keys())
        if digests.get(name) != manifest.tensors.get(name)
    ]

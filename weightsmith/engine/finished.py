"""Hold a finished output against its own manifest."""

from collections.abc import Mapping

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.engine.file_hashes import file_digest
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
            found = file_digest(checkpoint.directory / name)
        except WeightsmithError as error:
            problems.append(str(error))
            continue
        if found != sidecar.digest:
            problems.append(f"{name} was changed")
    return problems + [
        f"tensor {name} differs"
        for name in sorted(digests.keys() | manifest.tensors.keys())
        if digests.get(name) != manifest.tensors.get(name)
    ]

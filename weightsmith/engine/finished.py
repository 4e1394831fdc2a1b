"""Hold a finished output against its own manifest, and its manifest against a plan."""

from collections.abc import Mapping

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.content import inside
from weightsmith.engine.file_hashes import file_digest, rest_digest
from weightsmith.engine.manifest import LIMIT_NBYTES, Manifest, own_sidecars
from weightsmith.engine.manifest import NAME as MANIFEST
from weightsmith.engine.options import Bindings
from weightsmith.errors import WeightsmithError
from weightsmith.plan.model import Plan


def made_otherwise(plan: Plan, bindings: Bindings, manifest: Manifest) -> str:
    """Why a finished output is not what the plan would make of these inputs; empty if it is.

    Inputs that were modified after it was finished count, as ``make`` would have it.
    """
    if manifest.plan != plan.digest:
        return "another plan made it"
    finished_ns = (bindings.target / MANIFEST).stat().st_mtime_ns
    for checkpoint in bindings.inputs.values():
        for file in checkpoint.files:
            if file.mtime_ns > finished_ns:
                return f"{checkpoint.directory / file.name} is newer than it"
    return ""


def damage(checkpoint: Checkpoint, manifest: Manifest, digests: Mapping[str, str]) -> list[str]:
    """Every way in which an output is not what its manifest says, as sentences.

    `digests` are those of its tensors, read just now.
    """
    problems = []
    path = checkpoint.directory / MANIFEST
    if not manifest.is_of(fs.read_small(path, LIMIT_NBYTES)):
        problems.append(f"{MANIFEST} was changed")
    files = {file.name: (file.size, file.header_digest) for file in checkpoint.files}
    for name, file in manifest.files.items():
        if name not in files:
            problems.append(f"{name} is missing")
        elif files[name] != (file.size, file.header_digest):
            problems.append(f"{name}: size or header differ")
        elif file.rest_digest and file.rest_digest != rest_digest(checkpoint.directory / name):
            problems.append(f"{name}: bytes beside its tensors differ")
    held = (
        {}
        if manifest.delta is None
        else own_sidecars(manifest, (*checkpoint.sidecars, *checkpoint.large))
    )
    for name, sidecar in manifest.sidecars.items():
        try:
            found = file_digest(inside(checkpoint.directory, held.get(name, name)))
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

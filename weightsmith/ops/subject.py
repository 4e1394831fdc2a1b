"""Open what is to be verified, with all that is known of it."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from weightsmith.catalogue.load import load_releases
from weightsmith.catalogue.schema import Release
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.kind import guess_kind
from weightsmith.engine.decoded import open_output
from weightsmith.engine.derived import Derived
from weightsmith.engine.manifest import Manifest, read_manifest
from weightsmith.engine.staging import Staging
from weightsmith.errors import NoWeights, SourceNotFound, WeightsmithError
from weightsmith.ops.apply_delta import plan_apply_delta
from weightsmith.ops.sources import open_source

_NOWHERE: Final = Path(tempfile.gettempdir(), "weightsmith-nowhere")
"""A plan names its target; nothing is ever made there."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A checkpoint, and what is known of it."""

    checkpoint: Checkpoint
    parts: tuple[Checkpoint, ...]
    """Those whose files it is read from: itself, or a delta and its base."""
    manifest: Manifest | None = None
    """The record of how it was made, where it lies in one of our outputs."""
    fault: str = ""
    """Why there is no manifest though there is a file of its name."""
    release: Release | None = None
    """The published delta that it came from, where that is certain."""

    @property
    def applied(self) -> bool:
        """Whether it is a delta on its base, which is nowhere written."""
        return self.parts != (self.checkpoint,)


def open_subject(
    source: str | os.PathLike[str], base: str | os.PathLike[str] | None = None
) -> Subject:
    """Open a SOURCE; a delta with its base is opened as the model that applying it would give.

    Raises: SourceNotFound and others, as `open_source`; for a delta with a base, as
    `plan_apply_delta`.
    """
    try:
        checkpoint = open_source(source)
    except SourceNotFound as error:
        _tell_of_staging(Path(source), error)
        raise
    except NoWeights:
        if not os.path.lexists(Path(source, "weightsmith.json")):
            raise
        checkpoint = open_output(Path(source))
    if base is not None and guess_kind(checkpoint).kind == "delta":
        return _applied(source, base)
    manifest, fault = None, ""
    try:
        manifest = read_manifest(checkpoint.directory)
    except WeightsmithError as error:
        fault = str(error)
    known = (release for release in load_releases() if manifest and release.id == manifest.release)
    return Subject(checkpoint, (checkpoint,), manifest, fault, next(known, None))


def _applied(source: str | os.PathLike[str], base: str | os.PathLike[str]) -> Subject:
    """Raises: as `plan_apply_delta`."""
    job = plan_apply_delta(base, source, target=_NOWHERE)
    inputs = job.bindings.inputs
    derived = Derived(
        label=f"{os.fspath(source)} on {os.fspath(base)}",
        directory=inputs["delta"].directory,
        rules=job.plan.tensors,
        inputs=inputs,
        sidecars=job.bindings.sidecars,
        notes=job.plan.notes,
    )
    return Subject(derived, tuple(inputs.values()), release=job.release)


def _tell_of_staging(path: Path, error: SourceNotFound) -> None:
    """Say where an unfinished output of this name lies.

    Raises: SourceNotFound, if there is one.
    """
    staging = Staging(Path(os.path.abspath(path)))  # noqa: PTH100  (links are not followed)
    if staging.path.is_dir():
        raise SourceNotFound(
            source=path,
            context=[f"what an unfinished run made of it lies in {staging.path}"],
            hint="run the command that makes it again; it goes on where it stopped",
        ) from error

"""Open what is to be verified, with all that is known of it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from weightsmith.catalogue.load import load_releases
from weightsmith.catalogue.schema import Release
from weightsmith.checkpoint.checkpoint import Checkpoint, Tensor
from weightsmith.checkpoint.kind import Guess, guess_kind
from weightsmith.checkpoint.store import LocalStore
from weightsmith.engine.derived import Derived
from weightsmith.engine.manifest import Manifest
from weightsmith.formats.tensors import StoredTensor
from weightsmith.ops.apply_delta import plan_apply_delta
from weightsmith.plan.exact_record import DeltaRecord
from weightsmith.plan.model import TensorPlan
from weightsmith.sources.kinds import AdditiveDelta, Chain, ExactDelta, Model, require_model
from weightsmith.sources.locate import label_of, locate
from weightsmith.sources.recognise import open_model, recognise

_NOWHERE: Final = Path(os.sep, "weightsmith-nowhere")
"""A plan names its target; nothing is ever made there."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A checkpoint, and what is known of it."""

    checkpoint: Checkpoint
    parts: Mapping[str, Checkpoint]
    """By role, those whose files it is read from: itself, or a delta and its base."""
    kind: Guess
    manifest: Manifest | None = None
    """The record of how it was made, where it lies in one of our outputs."""
    fault: str = ""
    """Why there is no manifest though there is a file of its name."""
    release: Release | None = None
    """The published delta that it came from, where that is certain."""
    base: Checkpoint | None = None
    """The model that it was made from, where the user names it."""
    rules: tuple[TensorPlan, ...] = ()
    """Of a delta on its base: how its tensors follow from theirs."""
    promise: DeltaRecord | None = None
    """Record of an exact delta opened without its base; its tensors cannot be read."""


def open_subject(
    source: str | os.PathLike[str], base: str | os.PathLike[str] | None = None
) -> Subject:
    """Open a SOURCE; a delta with its base is opened as the model that applying it would give.

    Raises: SourceNotFound and others, as `open_source`; for a delta with a base, as
    `plan_apply_delta`.
    """
    source = locate(source)
    found = recognise(source)
    match found:
        case ExactDelta():
            return _promised(found) if base is None else _applied(source, base)
        case AdditiveDelta() if base is not None:
            return _applied(source, base)
        case Model() | AdditiveDelta():
            checkpoint, kind = found.checkpoint, found.guess
            manifest, fault = found.manifest, str(found.fault or "")
        case Chain():
            model = require_model(found)
            if not isinstance(model, Derived):
                raise TypeError(model)
            parts = {f"link {number}": leaf for number, leaf in enumerate(model.leaves)}
            return Subject(model, parts, guess_kind(model), rules=model.plans)
        case _:
            checkpoint = require_model(found)
            kind, manifest, fault = guess_kind(checkpoint), None, ""
    known = (release for release in load_releases() if manifest and release.id == manifest.release)
    return Subject(
        checkpoint,
        {"source": checkpoint},
        kind,
        manifest,
        fault,
        next(known, None),
        open_model(base) if base is not None else None,
    )


def _promised(delta: ExactDelta) -> Subject:
    """An exact delta by itself, as the model that it says it makes.

    Raises: DeltaInvalid, if record and payloads do not belong together.
    """
    payloads, record = delta.checkpoint, delta.record
    rules = record.rules({name: tensor.info for name, tensor in payloads.tensors.items()})
    model = Checkpoint(
        label=payloads.label,
        directory=payloads.directory,
        store=LocalStore(payloads.directory),
        files=payloads.files,
        tensors={each.output.name: Tensor(StoredTensor(each.output, 0), "") for each in rules},
        sidecars=payloads.sidecars,
        notes=payloads.notes,
    )
    kind = Guess("delta", delta.why)
    return Subject(model, {"delta": payloads}, kind, delta.manifest, promise=record)


def _applied(source: str | os.PathLike[str], base: str | os.PathLike[str]) -> Subject:
    """Raises: as `plan_apply_delta`."""
    job = plan_apply_delta(base, source, target=_NOWHERE)
    inputs = job.bindings.inputs
    derived = Derived(
        label=f"{label_of(source)} on {label_of(base)}",
        directory=inputs["delta"].directory,
        rules=job.plan.tensors,
        inputs=inputs,
        sidecars=job.bindings.sidecars,
        notes=job.plan.notes,
    )
    return Subject(
        derived,
        inputs,
        guess_kind(derived),
        release=job.release,
        base=inputs["base"],
        rules=job.plan.tensors,
    )

"""The values that a SOURCE is recognised as; commands match on them."""

from dataclasses import dataclass

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.discover import no_weights
from weightsmith.checkpoint.kind import Guess
from weightsmith.engine.manifest import Manifest
from weightsmith.errors import EncodedRelease, NoWeights, WeightsmithError
from weightsmith.plan.add_record import AddRecord
from weightsmith.plan.exact_record import DeltaRecord
from weightsmith.sources.disk_delta import DiskDelta
from weightsmith.sources.file_release import FileRelease
from weightsmith.sources.training.layout import Form
from weightsmith.units import counted


class _Opened:
    """What all opened sources share."""

    __slots__ = ()
    checkpoint: Checkpoint

    @property
    def label(self) -> str:
        """The source as the user wrote it."""
        return self.checkpoint.label


@dataclass(frozen=True, slots=True)
class Model(_Opened):
    """A model in Hugging Face's layout."""

    checkpoint: Checkpoint
    guess: Guess
    """``model`` or ``unknown``, and which tensors that was guessed from."""
    manifest: Manifest | None = None
    """The record of how weightsmith made it; None for anything else."""
    fault: WeightsmithError | None = None
    """Why the manifest cannot be read; None if it can, or if there is none."""

    @property
    def why(self) -> str:
        """What it was taken for this by, as a clause."""
        return self.guess.reason


@dataclass(frozen=True, slots=True)
class AdditiveDelta(_Opened):
    """A delta whose tensors are added to those of a base."""

    checkpoint: Checkpoint
    guess: Guess
    manifest: Manifest | None = None
    record: AddRecord | None = None
    """The record of a delta that weightsmith made; None for other deltas."""
    fault: WeightsmithError | None = None

    @property
    def why(self) -> str:
        """What it was taken for this by, as a clause."""
        return self.guess.reason


@dataclass(frozen=True, slots=True)
class ExactDelta(_Opened):
    """A delta that restores a target from its base, bit for bit."""

    checkpoint: Checkpoint
    """The encoded tensors that it stores, as tensors of bytes."""
    manifest: Manifest
    record: DeltaRecord

    @property
    def why(self) -> str:
        """What it was taken for this by, as a clause."""
        return f"it holds what to change in its base, {self.record.base}"


@dataclass(frozen=True, slots=True)
class Meta(_Opened):
    """A model in Meta's own layout, read as Hugging Face's."""

    checkpoint: Checkpoint
    why: str


@dataclass(frozen=True, slots=True)
class Adapter(_Opened):
    """A LoRA adapter, whose config is one of its sidecars."""

    checkpoint: Checkpoint
    why: str


@dataclass(frozen=True, slots=True)
class TrainingOutput(_Opened):
    """A training output: parts of a model that are joined as they are read, or a single file."""

    checkpoint: Checkpoint
    form: Form
    """The layout in which the run saved it."""
    why: str


@dataclass(frozen=True, slots=True)
class Chain(_Opened):
    """A model and deltas; read as the model that applying them one after another gives."""

    checkpoint: Checkpoint
    links: tuple[str, ...]
    """The model and the deltas, as the user wrote them."""

    @property
    def why(self) -> str:
        """What it was taken for this by, as a clause."""
        return f"{self.links[0]} with {counted(len(self.links) - 1, 'delta')} on it"


Source = (
    Model
    | AdditiveDelta
    | ExactDelta
    | Meta
    | Adapter
    | TrainingOutput
    | FileRelease
    | Chain
    | DiskDelta
)


def require_model(source: Source) -> Checkpoint:
    """The checkpoint of a source that can be read as a model.

    An additive delta is accepted, for its values only suggest that it is one; commands that care
    check it themselves.
    Raises: EncodedRelease, for files that have to be decoded first; NoWeights, for anything else
    that is not a model.
    """
    match source:
        case FileRelease():
            way = f"weightsmith apply-delta --key FILE --delta {source.label}"
            if source.encoding == "xor-file":
                way = f"weightsmith apply-delta --base BASE --delta {source.label}"
            hint = f"decode it first: {way}"
            raise EncodedRelease(source=source.label, reason=source.why, hint=hint)
        case DiskDelta():
            hint = f"name the model that they started from before them: BASE+{source.label}"
            raise NoWeights(source=source.label, context=[source.why], hint=hint)
        case Model() | AdditiveDelta() | Meta() | TrainingOutput() | Chain() if (
            source.checkpoint.files
        ):
            return source.checkpoint
        case _:
            raise no_weights(source.checkpoint.directory)

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
    """Weights in Hugging Face's layout, whole as far as can be told."""

    checkpoint: Checkpoint
    guess: Guess
    """``model`` or ``unknown``, and by which tensors."""
    manifest: Manifest | None = None
    """The record of how it was made, of an output of ours."""
    fault: WeightsmithError | None = None
    """Why there is no manifest though there is a file of its name."""

    @property
    def why(self) -> str:
        """What it was taken for this by, as a clause."""
        return self.guess.reason


@dataclass(frozen=True, slots=True)
class AdditiveDelta(_Opened):
    """Weights to be added to a base's."""

    checkpoint: Checkpoint
    guess: Guess
    manifest: Manifest | None = None
    record: AddRecord | None = None
    """What weightsmith wrote of a delta that it made; None for anybody else's."""
    fault: WeightsmithError | None = None

    @property
    def why(self) -> str:
        """What it was taken for this by, as a clause."""
        return self.guess.reason


@dataclass(frozen=True, slots=True)
class ExactDelta(_Opened):
    """A target coded against its base, bit for bit."""

    checkpoint: Checkpoint
    """The tensors of bytes that it stores."""
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
    """What a training run left: parts of a model to be put together, or a file by itself."""

    checkpoint: Checkpoint
    form: Form
    """How the run kept it."""
    why: str


@dataclass(frozen=True, slots=True)
class Chain(_Opened):
    """A model and deltas, which is the model that applying them one after the other would give."""

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
    """What was recognised, as a model.

    An additive delta is let through: a model's weights and a delta's are told apart by appearances,
    which a command may overrule.
    Raises: EncodedRelease, for files that are no weights until they are decoded; NoWeights, for all
    else that is no model.
    """
    match source:
        case FileRelease():
            way = f"weightsmith apply-delta --key FILE --delta {source.label}"
            if source.encoding == "xor-file":
                way = f"weightsmith apply-delta --base BASE --delta {source.label}"
            hint = f"decode it first: {way}"
            raise EncodedRelease(source=source.label, reason=source.why, hint=hint)
        case DiskDelta():
            hint = f"put them on the model that they began with, as a source: BASE+{source.label}"
            raise NoWeights(source=source.label, context=[source.why], hint=hint)
        case Model() | AdditiveDelta() | Meta() | TrainingOutput() | Chain() if (
            source.checkpoint.files
        ):
            return source.checkpoint
        case _:
            raise no_weights(source.checkpoint.directory)

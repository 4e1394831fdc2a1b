"""What is decided about a damaged file: how the right one is made, or why it cannot be."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.content import Content
from weightsmith.ops.fix.damage import DamagedFile
from weightsmith.plan.exact_record import DeltaRecord
from weightsmith.plan.model import Plan, ShardPlan

OURS, THEIRS = "here", "source"
"""The inputs of a rebuilt file: the damaged file itself, and the source of right bytes."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """A file of an exact delta, to be coded again of base and target."""

    plan: Plan
    """Of the whole delta."""
    record: DeltaRecord
    """What the delta says of itself: by it, what its other files hold."""


@dataclass(frozen=True, slots=True)
class Headers:
    """An index, to be made of the headers of the weight files once these are right."""


@dataclass(frozen=True, slots=True)
class Mend:
    """How the right file in the place of a damaged one is made."""

    damaged: DamagedFile
    made_as: ShardPlan | Encoding | Content | Headers
    """What the engine fills or codes, or the content of a small file."""
    how: str
    """Where the right bytes come from, as a clause."""
    nbytes: int
    """Size of the right file."""
    inputs: Mapping[str, Checkpoint] = field(default_factory=dict)
    """What a weight file is made from, by the names that its plan uses."""

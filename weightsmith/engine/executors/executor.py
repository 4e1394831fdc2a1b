"""Who makes the files of an output that are not there yet."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from weightsmith.engine.options import Bindings, Options
from weightsmith.engine.receipts import Receipt
from weightsmith.engine.spans import Buffers
from weightsmith.engine.staging import Staging
from weightsmith.plan.model import Plan
from weightsmith.progress import Progress


class Work(Protocol):
    """An output in the making, as `output.Making` holds it."""

    plan: Plan
    bindings: Bindings
    options: Options
    staging: Staging
    buffers: list[Buffers]
    progress: Progress

    def require_unchanged(self, made: Mapping[str, Receipt]) -> None:
        """Hold the inputs against what they were; `made` are the shards made so far.

        Raises: InputChanged.
        """
        ...

    def require_finite(self, made: Receipt) -> None:
        """Raises: NotFinite, if a shard holds values that are no numbers and may not."""
        ...


class Executor(Protocol):
    """Makes shards, here or elsewhere; the bytes are the same whoever does."""

    anywhere: bool
    """Whether other machines take part, or took part before: what only this machine can say of an
    input, or of a processor, is then not asked of the receipts.
    """

    def make(self, work: Work, numbers: Sequence[int]) -> Mapping[str, Receipt]:
        """Make these shards of the plan in the staging of `work`, synced and checked, each with
        its receipt; returns the receipts by the shards' names.

        Raises: whatever reading, computing and writing meet; DiskFull, VerificationFailed.
        """
        ...

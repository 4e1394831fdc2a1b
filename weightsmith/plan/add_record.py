"""The record of an additive delta: its base, and what adding the two gives.

It is the part ``"delta"`` of the delta's ``weightsmith.json``. Tools that know only the tensors do
without it; with it, a wrong base is found.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from weightsmith.errors import DeltaInvalid, DeltaUnknown
from weightsmith.plan.align import NewRows
from weightsmith.plan.base_record import BaseRecord, digest_of, items, text
from weightsmith.plan.model import TensorPlan

FORM: Final = "add-delta@1"
_NEW_ROWS: Final[Mapping[str, NewRows]] = {"none": "none", "zero": "zero", "mean": "mean"}


@dataclass(frozen=True, slots=True)
class AddRecord:
    """All that an additive delta of ours says of itself."""

    base: BaseRecord
    new_rows: NewRows
    """How vocabulary rows that the base lacks count."""
    sums: Mapping[str, str]
    """By name, the digest of base + delta in the delta's dtype, of tensors whose sum has the same
    bits on every machine: without NaNs, and without rows that count as a mean.
    """
    loss: Mapping[str, Any]
    """What the sums differ by from the target, for people."""

    def expected(self, rule: TensorPlan) -> TensorPlan:
        """The rule of a tensor with the digests that its base and its sum must have."""
        digests = {each.info: each.digest for each in self.base.tensors}
        inputs = tuple(
            replace(each, digest=digests.get(each.info, "")) if each.role == "base" else each
            for each in rule.inputs
        )
        return replace(rule, inputs=inputs, digest=self.sums.get(rule.output.name, ""))

    def to_document(self) -> dict[str, Any]:
        """The record as JSON values."""
        return {
            "form": FORM,
            "base": self.base.to_document(),
            "new_rows": self.new_rows,
            "sums": [[name, digest] for name, digest in self.sums.items()],
            "loss": dict(self.loss),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "AddRecord":
        """The inverse of `to_document`, for records from anywhere.

        Raises: DeltaUnknown, for another version's; DeltaInvalid.
        """
        if document.get("form") != FORM:
            raise DeltaUnknown(what="the record", found=document.get("form"))
        try:
            return cls(
                base=BaseRecord.from_document(document["base"]),
                new_rows=_NEW_ROWS[text(document["new_rows"])],
                sums={text(n): digest_of(digest) for n, digest in items(document["sums"])},
                loss=dict(document["loss"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DeltaInvalid(name="record", reason=error) from error

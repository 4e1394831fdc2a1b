"""What a step does to rows of a tensor."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weightsmith.codecs.lora.deltas import Delta, delta
from weightsmith.codecs.lora.steps import Experts, Step
from weightsmith.codecs.torch_views import import_torch

if TYPE_CHECKING:
    from torch import Tensor


class Change:
    """A step with its tensors; it may be applied to any rows, from any thread."""

    def take(self, value: "Tensor", first: int) -> None:
        """Change rows in place, of which the first is row `first` of the tensor.

        The order of operations, and which sums are made in `value`'s dtype and which are wider and
        rounded into it, is peft's; while `value` is float32, nothing is rounded here.
        """
        raise NotImplementedError


@dataclass(slots=True)
class Sum(Change):
    """Adds a delta."""

    delta: Delta
    rounded: bool
    """Whether the delta is rounded before it is added."""

    def take(self, value: "Tensor", first: int) -> None:
        """Add, block by block."""
        for low, high, block in self.delta.blocks(first, first + len(value)):
            value[low - first : high - first] += block.to(value.dtype) if self.rounded else block


@dataclass(slots=True)
class Normed(Change):
    """Adds a delta and scales each output of the layer to a learned norm."""

    delta: Delta
    factor: "Tensor"
    """The magnitude: one a row, or, divided by the norm already, one a column."""

    def take(self, value: "Tensor", first: int) -> None:
        """Add and scale, block by block."""
        for low, high, block in self.delta.blocks(first, first + len(value)):
            part = value[low - first : high - first]
            moved = part + block
            factor = self.factor
            if self.delta.step.by_row:
                norms = import_torch().linalg.norm(moved, dim=1)
                factor = (factor[low:high] / norms).reshape(-1, 1)
            part.copy_(factor * moved)


@dataclass(slots=True)
class Replaced(Change):
    """Replaces each row by one made from it alone."""

    made: "Callable[[Tensor, int], None]"

    def take(self, value: "Tensor", first: int) -> None:
        """Replace the rows."""
        self.made(value, first)


def change(step: Step, tensors: "Sequence[Tensor]", experts: Experts | None = None) -> Change:
    """What a step does, with its tensors in the dtype of the arithmetic."""
    if step.dora:
        return Normed(delta(step, tensors, experts), tensors[-1].reshape(-1))
    if step.is_sum:
        rounded = step.kind in {"embedding", "experts"} or "rounded" in step.flags
        return Sum(delta(step, tensors, experts), rounded)
    (given,) = tensors

    def add_bias(value: "Tensor", first: int) -> None:
        value += (given[first : first + len(value)] * step.scale).reshape(value.shape)

    def set_rows(value: "Tensor", first: int) -> None:
        for source, row in enumerate(step.rows):
            if first <= row < first + len(value):
                value[row - first] = given[source]

    def scale_rows(value: "Tensor", first: int) -> None:
        value.copy_(value * given.reshape(-1, 1)[first : first + len(value)])

    def scale_columns(value: "Tensor", _: int) -> None:
        value.copy_(value * given.reshape(1, -1))

    match step.kind:
        case "bias":
            return Replaced(add_bias)
        case "rows":
            return Replaced(set_rows)
        case "ia3":
            return Replaced(scale_columns if "turned" in step.flags else scale_rows)
        case _:
            return Replaced(_rotate(step, given))


def _rotate(step: Step, given: "Tensor") -> "Callable[[Tensor, int], None]":
    """Turn each row, some columns at a time, by Cayley's map of a skew-symmetric matrix, of which
    `given` has what lies above the diagonal: ``(blocks, size * (size - 1) / 2)``.
    """
    torch = import_torch()
    size = step.top
    above = torch.triu_indices(size, size, 1)
    skew = torch.zeros(len(given), size, size, dtype=given.dtype)
    skew[:, above[0], above[1]] = given
    skew = skew - skew.transpose(-2, -1)
    one = torch.eye(size, dtype=given.dtype).expand_as(skew)
    if "neumann" in step.flags:
        rotation = _neumann(one.clone(), skew, step.divisor)
    else:
        rotation = torch.linalg.solve(one + skew, one - skew, left=False)

    def rotate(value: "Tensor", _: int) -> None:
        blocks = value.reshape(len(value), -1, size).transpose(0, 1).to(given.dtype)
        turned = rotation @ blocks.transpose(1, 2)
        value.copy_(turned.permute(2, 0, 1).reshape(value.shape))

    return rotate


def _neumann(total: "Tensor", skew: "Tensor", terms: int) -> "Tensor":
    """Cayley's map as the first `terms` of its series, the way peft sums them."""
    torch = import_torch()
    if terms > 1:
        total.add_(skew, alpha=2.0)
    if terms > 2:
        power = torch.bmm(skew, skew)
        total.add_(power, alpha=2.0)
        for _ in range(3, terms - 1):
            power = torch.bmm(power, skew)
            total.add_(power, alpha=2.0)
        total.add_(torch.bmm(power, skew))
    return total

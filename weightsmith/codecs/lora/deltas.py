"""What a step adds to a tensor, block of rows by block of rows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weightsmith.codecs.lora.steps import Experts, Step
from weightsmith.codecs.torch_views import import_torch

if TYPE_CHECKING:
    from torch import Tensor

BLOCK_ROWS: Final = 96
"""Rows of a product that are computed at a time, counted from the tensor's first row (of each
expert, where it holds several); a shorter rest belongs to the block before it.

A constant, because the bits of a product may depend on how it is cut. Tried with MKL's kernels for
AVX2 and for AVX-512: cut so, it is the whole product bit for bit up to rank 768; with a short block
at the end it is not, and with AVX2 not in blocks of 64 or 128 either.
"""


@dataclass(slots=True)
class Delta:
    """What is added to a tensor: `groups` matrices of `rows` rows, one under the other."""

    step: Step
    rows: int
    block: "Callable[[int, int, int], Tensor]"
    """``block(group, low, high)``: those rows of a group's matrix, not scaled yet."""
    groups: int = 1

    def blocks(self, first: int, stop: int) -> "Iterator[tuple[int, int, Tensor]]":
        """What is added to rows `first` to `stop`, in blocks: from row, to row, and it."""
        for group in range(first // self.rows, -(-stop // self.rows)):
            above = group * self.rows
            here, there = max(first - above, 0), min(stop - above, self.rows)
            for low, high in _cut(self.rows, here, there):
                found = self.block(group, low, high).mul_(self.step.scale)
                if self.step.divisor:
                    # As peft has it: a rank in float32, and a little against a division by zero.
                    rank = import_torch().tensor([float(self.step.divisor)])
                    found /= rank.to(found.dtype) + 1e-5
                kept = slice(max(here - low, 0), min(there, high) - low)
                yield above + low + kept.start, above + low + kept.stop, found[kept]


def delta(step: Step, tensors: "Sequence[Tensor]", experts: Experts | None) -> Delta:
    """What a step adds, of its tensors in the dtype of the arithmetic; `Step` says which those are.

    `experts` says what the tensor holds, where it belongs to some of them.
    Memory: `tensors` again, at most.
    """
    match step.kind:
        case "experts":
            return _experts(step, experts.part if experts else None, *tensors)
        case "adalora":
            a, b, e = tensors
            scaled = a * e.reshape(-1, 1)
            return _product(step, b, scaled) if step.by_row else _product(step, scaled.T, b.T)
        case "vera":
            a, b, d, gain = tensors
            left = gain[:, None] * b[: len(gain)]
            return _product(step, left, d[:, None] * a[:, : step.top])
        case "vblora":
            bank, *logits = tensors
            a, b = (_mixed(bank, each, step.top) for each in logits)
            return _product(step, b.transpose(1, 2).reshape(-1, b.shape[1]), a.flatten(1))
        case "loha":
            left, right, left2, right2 = tensors

            def multiplied(_: int, low: int, high: int) -> "Tensor":
                return (left[low:high] @ right).mul_(left2[low:high] @ right2)

            return Delta(step, len(left), multiplied)
        case "lokr":
            return _kronecker(step, tensors)
        case _:
            a, b = (each.flatten(1) for each in tensors[:2])
            return _product(step, b, a) if step.by_row else _product(step, a.T, b.T)


def _product(step: Step, left: "Tensor", right: "Tensor") -> Delta:
    """``left @ right``, computed in the order in which peft does."""
    return _products(step, [left], [right])


def _products(step: Step, left: "Sequence[Tensor]", right: "Sequence[Tensor]") -> Delta:
    def block(group: int, low: int, high: int) -> "Tensor":
        if step.by_row:
            return left[group][low:high] @ right[group]
        # Columns of the product that peft turns: made turned, AVX2 gives it other bits.
        return (right[group].T @ left[group][low:high].T).T.contiguous()

    return Delta(step, len(left[0]), block, groups=len(left))


def _experts(step: Step, part: tuple[int, int] | None, a: "Tensor", b: "Tensor") -> Delta:
    """One product an expert; of a tensor that holds one expert alone, its factors come alone."""
    a = a.reshape(-1, b.shape[2], a.shape[-1])
    left, right = (b, a) if step.by_row else (a.transpose(1, 2), b.transpose(1, 2))
    if part is not None:
        left = left[:, part[0] : part[1]]
    return _products(step, list(left), list(right))


def _mixed(bank: "Tensor", logits: "Tensor", top: int) -> "Tensor":
    """Mixtures of the `top` vectors of the bank that have the largest logits."""
    torch = import_torch()
    largest, indices = logits.topk(top, dim=-1)
    found: Tensor = (torch.softmax(largest, dim=-1).unsqueeze(-1) * bank[indices]).sum(-2)
    return found


def _kronecker(step: Step, tensors: "Sequence[Tensor]") -> Delta:
    given = iter(tensors)
    first, second = (
        next(given) @ next(given) if flag in step.flags else next(given)
        for flag in ("low1", "low2")
    )
    inner = len(second)

    def block(_: int, low: int, high: int) -> "Tensor":
        rows = import_torch().arange(low, high)
        left, right = first[rows // inner], second[rows % inner]
        found: Tensor = (left.unsqueeze(2) * right.unsqueeze(1)).flatten(1)
        return found

    return Delta(step, len(first) * inner, block)


def _cut(rows: int, first: int, stop: int) -> Iterator[tuple[int, int]]:
    """The fixed blocks that hold rows `first` to `stop`, as first and last row."""
    last = max(rows // BLOCK_ROWS, 1) - 1
    for number in range(min(first // BLOCK_ROWS, last), min((stop - 1) // BLOCK_ROWS, last) + 1):
        low = number * BLOCK_ROWS
        yield low, rows if number == last else low + BLOCK_ROWS

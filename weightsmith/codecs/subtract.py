"""The rule *subtract*: delta = target - base, as FastChat and Alpaca made theirs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from weightsmith.codecs.add import Add
from weightsmith.codecs.base import Range, ReadInput
from weightsmith.codecs.torch_views import import_torch, torch_dtype, view
from weightsmith.formats.tensors import TensorInfo, dtype_bits

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Subtract:
    """Inputs base and target; both are cast to `dtype` and subtracted there.

    Shapes, dtypes and `new_rows`: as `Add`, with the target in the delta's place.
    Source: FastChat ``make_delta.py``, Stanford Alpaca ``weight_diff.py``.
    """

    dtype: str
    new_rows: str = "none"
    exact: ClassVar[bool] = False

    def signature(self, inputs: Sequence[TensorInfo]) -> TensorInfo:
        """The target's name and shape in `dtype`.

        Raises: DtypeNotSummable.
        """
        return self._inverse().signature(inputs)

    def prepare(
        self, inputs: Sequence[TensorInfo], output: TensorInfo, read: ReadInput
    ) -> "Tensor | None":
        """The base's mean row, where it will be needed."""
        return self._inverse().prepare(inputs, output, read)

    def reads(
        self,
        state: "Tensor | None",
        inputs: Sequence[TensorInfo],
        output: TensorInfo,
        span: Range,
    ) -> Sequence[Range]:
        """The same elements of both; of the base, those it has."""
        return self._inverse().reads(state, inputs, output, span)

    def apply(
        self,
        state: "Tensor | None",
        span: Range,
        blocks: Sequence[memoryview],
        inputs: Sequence[TensorInfo],
        output: TensorInfo,
        out: memoryview,
    ) -> None:
        """Subtract the blocks; past the end of the base, subtract the mean row or nothing."""
        torch = import_torch()
        base, target = (view(b, info.dtype) for b, info in zip(blocks, inputs, strict=True))
        delta = view(out, output.dtype)
        delta.copy_(target)
        delta[: len(base)] -= base.to(torch_dtype(self.dtype))
        if state is not None and len(base) < len(target):
            first = span.start * 8 // dtype_bits(output.dtype)
            columns = torch.arange(first + len(base), first + len(target)) % len(state)
            delta[len(base) :] -= state[columns]

    def _inverse(self) -> Add:
        """The rule that undoes this one, but for what rounding loses."""
        return Add(compute=self.dtype, dtype=self.dtype, new_rows=self.new_rows)

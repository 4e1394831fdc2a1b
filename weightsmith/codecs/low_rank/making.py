"""Predict one tensor from its base: what its payload holds beside the coded spans."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from weightsmith.codecs.exact.payload import table_nbytes, table_of
from weightsmith.codecs.low_rank.codec import elements_at
from weightsmith.codecs.low_rank.form import MAGIC, can_predict, geometry_of, head_nbytes
from weightsmith.formats.tensors import TensorInfo

if TYPE_CHECKING:
    from weightsmith.codecs.elements import Bits
    from weightsmith.codecs.low_rank.find import Factors, Given

_LEAST_NUMEL: Final = 1 << 16
"""Tensors of fewer elements are not searched for factors: they could save too little."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A tensor, and the factors by which it is predicted from its base."""

    base: TensorInfo
    output: TensorInfo
    factors: "Factors"

    @classmethod
    def find(
        cls,
        base: TensorInfo,
        output: TensorInfo,
        reads: tuple[Callable[[int, memoryview], None], Callable[[int, memoryview], None]],
        given: "Sequence[Given]" = (),
    ) -> "Prediction | None":
        """The prediction that makes a tensor's payload smaller, if there is one; its factors are
        `given`, or found from base and target.

        ``reads[0](start, buffer)`` fills `buffer` with the base's bytes from `start`, ``reads[1]``
        with the target's.
        """
        from weightsmith.codecs.low_rank.find import find

        geometry = geometry_of(output.shape)
        if geometry is None:
            return None
        factors = find(geometry, (base.dtype, output.dtype), reads, given)
        return None if factors is None else cls(base, output, factors)

    @property
    def rank(self) -> int:
        """Of the factors."""
        return self.factors.head.rank

    @property
    def start_nbytes(self) -> int:
        """Bytes of the payload before its spans."""
        return table_nbytes(self.output, MAGIC) + len(self._factors_bytes())

    def start_of(self, lengths: Sequence[int]) -> bytes:
        """The payload before its spans, of these lengths."""
        return table_of(lengths, MAGIC) + self._factors_bytes()

    def span(self, number: int, base: memoryview) -> "tuple[Bits, bytes]":
        """What a span is coded against, of the base's bytes there, and what its payload begins
        with.
        """
        from weightsmith.codecs.elements import elements_of
        from weightsmith.codecs.low_rank.factors import pack

        start, stop = elements_at(number, self.output)
        first, last = self.factors.predictor.geometry.rows_of(start, stop)
        left = self.factors.left[first:last].astype("int64")
        elements = elements_of(self.base.dtype).view(base)
        dtypes = self.base.dtype, self.output.dtype
        return self.factors.predictor.predict(start, left, elements, *dtypes), pack(left)

    def _factors_bytes(self) -> bytes:
        return self.factors.head.to_bytes() + b"".join(self.factors.rights)


def is_worth_a_look(base: TensorInfo, target: TensorInfo) -> bool:
    """Whether `target` may be its base plus a product, and is large enough for that to matter."""
    return can_predict(base, target) and target.numel >= _LEAST_NUMEL


def largest_start(base: TensorInfo, target: TensorInfo) -> int:
    """The most bytes that factors can add to a payload."""
    geometry = geometry_of(target.shape)
    if geometry is None or not is_worth_a_look(base, target):
        return 0
    numbers = 2 * geometry.slices * (geometry.rows + geometry.columns) * geometry.max_rank
    return len(MAGIC) + head_nbytes(geometry) + 4 * numbers

"""One tensor of an exact delta in the making: its spans, digests and factors."""

import threading
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.digest import span_count, span_digest, tensor_digest
from weightsmith.codecs.cast import elements_as_bytes
from weightsmith.codecs.exact.codec import base_elements
from weightsmith.codecs.exact.kernel import Kernel
from weightsmith.codecs.exact.making import SpanMaker
from weightsmith.codecs.exact.payload import MAGIC, MAGIC_CODED, table_nbytes, table_of
from weightsmith.codecs.lora.steps import parse_steps
from weightsmith.codecs.low_rank.given import given_factors
from weightsmith.codecs.low_rank.making import Prediction, is_worth_a_look
from weightsmith.engine.spans import Buffers, span_range
from weightsmith.errors import FactorsNotFinite
from weightsmith.formats.tensors import TensorInfo
from weightsmith.plan.exact_record import TargetTensor
from weightsmith.plan.model import TensorPlan

if TYPE_CHECKING:
    from weightsmith.codecs.low_rank.find import Given


def base_of(plan: TensorPlan) -> TensorInfo | None:
    """The tensor of the base that a tensor of the target is coded against, if there is one."""
    return next((each.info for each in plan.inputs if each.role == "base"), None)


class TensorMaking:
    """One tensor of the target in the making."""

    made: TargetTensor

    def __init__(
        self,
        plan: TensorPlan,
        inputs: Mapping[str, Checkpoint],
        writer: Kernel | None,
        products: Mapping[str, str],
    ) -> None:
        """Nothing is read yet; `products` are what an adapter adds to the base's tensors, by their
        names. A `writer` codes spans by class; without one, none are.
        """
        self.output = plan.output
        self.base = base_of(plan)
        self.span_count = span_count(plan.output.nbytes)
        self.digests = [b""] * max(self.span_count, 1)
        self.lengths: list[int] = []
        self.start = 0
        """Where its payload begins in the file."""
        self.prediction: Prediction | None = None
        self.coded = False
        """Whether some of its spans are coded by class."""
        self._writer = writer
        self._looked = threading.Event()
        self._factors = [each.info for each in plan.inputs if each.role == "adapter"]
        self._steps = products.get(self.base.name, "") if self.base else ""
        self._base_digests = list(self.digests)
        self._inputs = inputs

    @property
    def is_like_base(self) -> bool:
        """Whether the base's tensor has the same dtype and shape."""
        base, ours = self.base, self.output
        return base is not None and (base.dtype, base.shape) == (ours.dtype, ours.shape)

    @property
    def may_have_factors(self) -> bool:
        """Whether it is worth a look if it is its base plus a product."""
        return self.base is not None and is_worth_a_look(self.base, self.output)

    def look_for_factors(self) -> None:
        """Find the factors, if there are any; its spans wait for that."""
        try:
            if self.base is not None:
                sides = (("base", self.base), ("target", self.output))
                reads = [partial(self._inputs[role].read_into, info.name) for role, info in sides]
                self.prediction = Prediction.find(
                    self.base, self.output, (reads[0], reads[1]), self._given()
                )
        finally:
            self._looked.set()  # also after an error, which stops all

    def _given(self) -> "list[Given]":
        """The factors of the adapter that was given, where it has some for this tensor.

        Raises: FactorsNotFinite.
        """
        if not self._factors:
            return []
        adapter = self._inputs["adapter"]
        blocks = [memoryview(adapter.read_small(info.name)) for info in self._factors]
        try:
            return [given_factors(parse_steps(self._steps), self._factors, blocks)]
        except ValueError as error:
            raise FactorsNotFinite(adapter=adapter.label, reason=error) from error

    @property
    def start_nbytes(self) -> int:
        """Bytes of the payload before its spans."""
        return self.prediction.start_nbytes if self.prediction else table_nbytes(self.output)

    def start_bytes(self) -> bytes:
        """The payload before its spans, when all of these are made."""
        lengths = self.lengths[: self.span_count]
        if self.prediction:
            return self.prediction.start_of(lengths)
        return table_of(lengths, MAGIC_CODED if self.coded else MAGIC)

    def make(self, number: int, own: Buffers) -> SpanMaker:
        """Read a span of target and base, digest both, and make the payload."""
        span = span_range(number, self.output.nbytes)
        dtype = self.output.dtype
        target = own.block(0, span.nbytes)
        self._inputs["target"].read_into(self.output.name, span.start, target)
        self.digests[number] = span_digest(target)
        if self.base is None:
            known = base_elements(None, dtype, dtype)
            return SpanMaker(known, target, dtype, writer=self._writer)
        part = elements_as_bytes(span, self.output, self.base)
        base = own.block(1, part.nbytes)
        self._inputs["base"].read_into(self.base.name, part.start, base)
        if self.is_like_base:
            self._base_digests[number] = span_digest(base)
        if self.may_have_factors:
            self._looked.wait()
        if self.prediction is None:
            known, prefix = base_elements(base, self.base.dtype, dtype), b""
        else:
            known, prefix = self.prediction.span(number, base)
        return SpanMaker(known, target, dtype, prefix, self._writer)

    def digest(self) -> str:
        """Of the target's tensor, when all its spans are made."""
        return tensor_digest(self.output, self.digests[: self.span_count])

    def base_digest(self) -> Iterator[tuple[str, str]]:
        """Name and digest of the base's tensor, if it was read whole."""
        if self.base is not None and self.is_like_base:
            yield self.base.name, tensor_digest(self.base, self._base_digests[: self.span_count])

    def drop_cache(self) -> None:
        """Give the page cache of both sides back to the system."""
        self._inputs["target"].drop_cache(self.output.name)
        if self.base is not None:
            self._inputs["base"].drop_cache(self.base.name)

"""Make one span of a payload, and prove that it decodes."""

from typing import TYPE_CHECKING

from weightsmith.codecs.exact.kernel import Kernel
from weightsmith.codecs.exact.payload import is_coded

if TYPE_CHECKING:
    from weightsmith.codecs.elements import Bits


class SpanMaker:
    """One span of a target: its payload, and the proof that it decodes."""

    def __init__(
        self,
        known: "Bits",
        target: memoryview,
        dtype: str,
        prefix: bytes = b"",
        writer: Kernel | None = None,
    ) -> None:
        """Make the payload; `known` is what the target's elements are coded against, as far as it
        goes. `prefix` begins the payload, and lets a reader find the same `known`. Without a
        `writer`, elements are not coded by class.
        """
        from weightsmith.codecs.elements import elements_of
        from weightsmith.codecs.exact.span import encode_span

        self._elements = elements_of(dtype)
        self._known = known
        self._prefix = prefix
        self._target = self._elements.view(target)
        coded, self._grouping = encode_span(known, self._target, self._elements, writer)
        self.is_coded = is_coded(coded)
        self.payload = prefix + coded

    def restores(self, stored: memoryview) -> bool:
        """Whether what was stored decodes to the target.

        What follows from the base alone (a prediction, the order of the elements) is taken from the
        encoder, and not worked out a second time.
        """
        import numpy as np
        import zstandard

        from weightsmith.codecs.exact.span import decode_span, same

        start = len(self._prefix)
        if stored[:start] != self._prefix:
            return False
        decoded = np.empty_like(self._target)
        try:
            decode_span(stored[start:], self._known, decoded, self._elements, self._grouping)
        except (ValueError, zstandard.ZstdError):
            return False
        return same(decoded, self._target)

"""The rule *join*: one matrix from the parts of it that Meta's model-parallel files hold."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final

from weightsmith.codecs.base import Codec, Range, Work, rows_in
from weightsmith.errors import PartsDoNotFit
from weightsmith.formats.tensors import TensorInfo, dtype_bits

if TYPE_CHECKING:
    import numpy as np

_UNSIGNED: Final = {1: "u1", 2: "u2", 4: "u4", 8: "u8"}
"""NumPy types that move elements of a width without looking at them."""


@dataclass(frozen=True, slots=True)
class Join(Codec):
    """Parts of one matrix, in the order of their files, one below the other or side by side.

    Shapes: along `axis` ``rows``, parts ``(rows_i, columns)``; along ``columns``, parts
    ``(rows, columns_i)``. With `head_rows`, each block of so many rows is one attention head, and
    its rows are put from Meta's order (pairs that are rotated together are neighbours) into Hugging
    Face's (the first of every pair, then the second).
    Dtypes: any of whole bytes; elements are moved, never converted.
    Memory: the parts' rows that cover a span; one span more where the span cuts a row.
    Source: transformers 4.28 to 4.46, ``convert_llama_weights_to_hf.py``, ``permute``.
    """

    axis: str
    head_rows: str = "0"
    exact: ClassVar[bool] = True

    def told(self) -> str:
        """``joined from the parts that the files hold``."""
        return "joined from the parts that the files hold"

    def signature(self, inputs: Sequence[TensorInfo]) -> TensorInfo:
        """The joint shape, under the first part's name.

        Raises: PartsDoNotFit.
        """
        along, across = (0, 1) if self.axis == "rows" else (1, 0)
        first = inputs[0]
        if {len(info.shape) for info in inputs} != {2}:
            raise PartsDoNotFit(name=first.name, reason="a part is no matrix")
        if len({(info.dtype, info.shape[across]) for info in inputs}) > 1:
            parts = ", ".join(map(str, inputs))
            raise PartsDoNotFit(name=first.name, reason=f"its parts differ: {parts}")
        if int(self.head_rows) and any(info.shape[0] % int(self.head_rows) for info in inputs):
            reason = f"a part does not hold whole heads of {self.head_rows} rows"
            raise PartsDoNotFit(name=first.name, reason=reason)
        joint = sum(info.shape[along] for info in inputs)
        shape = (joint, first.shape[1]) if along == 0 else (first.shape[0], joint)
        return replace(first, shape=shape)

    def reads(self, work: Work, span: Range) -> Sequence[Range]:
        """The rows of each part that cover the span; in a permuted part, as far as they spread."""
        first, stop = rows_in(span, work.output)
        if self.axis == "columns":
            return [Range(first * _width(info), stop * _width(info)) for info in work.inputs]
        ranges = []
        for info, rows in self._shares(work.inputs, first, stop):
            start, end = rows.start, rows.stop
            if len(rows) and int(self.head_rows):
                source = self._source_rows(rows)
                start, end = int(source.min()), int(source.max()) + 1
            ranges.append(Range(start * _width(info), end * _width(info)))
        return ranges

    def apply(self, work: Work, span: Range, blocks: Sequence[memoryview], out: memoryview) -> None:
        """Put the parts' rows in their places."""
        import numpy as np

        unit = np.dtype(_UNSIGNED[dtype_bits(work.output.dtype) // 8])
        first, stop = rows_in(span, work.output)
        width = _width(work.output)
        whole_rows = (first * width, stop * width) == (span.start, span.stop)
        covering = (
            np.frombuffer(out, unit)
            if whole_rows
            else np.empty((stop - first) * work.output.shape[1], unit)
        ).reshape(stop - first, work.output.shape[1])
        parts = [
            np.frombuffer(block, unit).reshape(-1, info.shape[1])
            for block, info in zip(blocks, work.inputs, strict=True)
        ]
        if self.axis == "columns":
            np.concatenate(parts, axis=1, out=covering)
        else:
            done = 0
            for part, (_, rows) in zip(parts, self._shares(work.inputs, first, stop), strict=True):
                place = covering[done : done + len(rows)]
                done += len(rows)
                if len(rows) and int(self.head_rows):
                    source = self._source_rows(rows)
                    np.take(part, source - source.min(), axis=0, out=place, mode="clip")
                else:
                    place[:] = part
        if not whole_rows:
            start = span.start - first * width
            np.frombuffer(out, "u1")[:] = covering.reshape(-1).view("u1")[
                start : start + span.nbytes
            ]

    @staticmethod
    def _shares(
        inputs: Sequence[TensorInfo], first: int, stop: int
    ) -> Iterator[tuple[TensorInfo, range]]:
        """Each part with those of its rows that lie in rows `first` to `stop` of the whole."""
        offset = 0
        for info in inputs:
            rows = info.shape[0]
            start = min(max(first - offset, 0), rows)
            yield info, range(start, max(min(stop - offset, rows), start))
            offset += rows

    def _source_rows(self, rows: range) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
        """For rows in Hugging Face's order, the same rows in Meta's; heads stay where they are."""
        import numpy as np

        size = int(self.head_rows)
        wanted = np.arange(rows.start, rows.stop)
        within = wanted % size
        second, pair = within // (size // 2), within % (size // 2)
        return wanted - within + 2 * pair + second


def _width(info: TensorInfo) -> int:
    """Bytes of a row."""
    return info.shape[1] * dtype_bits(info.dtype) // 8

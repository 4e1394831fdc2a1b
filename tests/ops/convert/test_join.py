"""The rule join against whole tensors, with spans that cut rows and heads anywhere."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support.meta_layout import unpermuted
from tests.support.spans import decoded, info_of
from weightsmith.codecs.base import Range, Work
from weightsmith.codecs.join import Join
from weightsmith.errors import PartsDoNotFit
from weightsmith.formats.tensors import TensorInfo

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.int8]


@given(
    axis=st.sampled_from(["rows", "columns"]),
    parts=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    across=st.integers(1, 7),
    span=st.integers(1, 40),
    dtype=st.sampled_from(DTYPES),
)
def test_parts_of_any_sizes_are_put_together_as_torch_does(
    axis: str, parts: list[int], across: int, span: int, dtype: torch.dtype
) -> None:
    shapes = [(size, across) if axis == "rows" else (across, size) for size in parts]
    tensors = [
        (torch.arange(a * b).reshape(a, b) + 31 * n).to(dtype) for n, (a, b) in enumerate(shapes)
    ]
    expected = torch.cat(tensors, dim=0 if axis == "rows" else 1)
    assert torch.equal(decoded(Join(axis), tensors, span), expected)


@given(
    half=st.integers(1, 4),
    heads=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    columns=st.integers(1, 5),
    span=st.integers(1, 60),
    dtype=st.sampled_from(DTYPES),
)
def test_heads_are_permuted_back_whatever_a_span_cuts(
    half: int, heads: list[int], columns: int, span: int, dtype: torch.dtype
) -> None:
    rows = 2 * half * sum(heads)
    expected = torch.arange(rows * columns).reshape(rows, columns).to(dtype)
    meta = unpermuted(expected, sum(heads))
    parts = list(torch.split(meta, [2 * half * count for count in heads]))
    found = decoded(Join("rows", str(2 * half)), parts, span)
    assert torch.equal(found, expected)


def test_no_more_is_read_than_the_heads_that_a_span_touches() -> None:
    info = TensorInfo("w", "F16", (4 * 128, 4096))
    span = Range(0, 2 * 1024 * 1024)  # two heads of 128 rows of 8 KiB
    (read,) = Join("rows", "128").reads(Work((info,), info), span)
    assert read == span


@pytest.mark.parametrize(
    "axis, head_rows, shapes",
    [
        ("rows", "0", [(2, 3), (2, 4)]),
        ("columns", "0", [(2, 3), (3, 3)]),
        ("rows", "4", [(4, 3), (6, 3)]),
        ("rows", "0", [(3,), (3,)]),
    ],
)
def test_parts_that_make_no_matrix_are_refused(
    axis: str, head_rows: str, shapes: list[tuple[int, ...]]
) -> None:
    infos = [info_of(torch.zeros(shape)) for shape in shapes]
    with pytest.raises(PartsDoNotFit):
        Join(axis, head_rows).signature(infos)


def test_parts_of_two_dtypes_are_refused() -> None:
    infos = [info_of(torch.zeros(2, 2)), info_of(torch.zeros(2, 2, dtype=torch.float16))]
    with pytest.raises(PartsDoNotFit, match="differ"):
        Join("rows").signature(infos)

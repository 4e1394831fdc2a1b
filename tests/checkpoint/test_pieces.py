"""A tensor in pieces is read as the whole tensor, whatever the pieces and the range."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightsmith.checkpoint.pieces import Gathered, Piece, Pieced
from weightsmith.errors import PartsDoNotFit
from weightsmith.formats.tensors import StoredTensor, TensorInfo

DTYPES = {"U8": "u1", "BF16": "u2", "F32": "u4", "F64": "u8"}


def cuts(size: int, draw: st.DrawFn) -> list[int]:
    inner = draw(st.sets(st.integers(0, size), max_size=3))
    return sorted({0, size, *inner})


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, tuple[int, ...], list[list[int]]]:
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    shape = tuple(draw(st.lists(st.integers(1, 7), max_size=4)))
    return dtype, shape, [cuts(size, draw) for size in shape]


def stored_in_pieces(
    directory: Path, whole: "np.ndarray", dtype: str, grid: Sequence[Sequence[int]]
) -> Gathered:
    """Each box of the grid in a file of its own, seven bytes after its beginning."""
    pieces = []
    counts = [len(edges) - 1 for edges in grid]
    for number, index in enumerate(np.ndindex(*counts)):
        low = [edges[i] for edges, i in zip(grid, index, strict=True)]
        high = [edges[i + 1] for edges, i in zip(grid, index, strict=True)]
        box = whole[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        (directory / str(number)).write_bytes(bytes(7) + box.tobytes())
        info = TensorInfo("w", dtype, box.shape)
        pieces.append(Piece(str(number), StoredTensor(info, 7), tuple(low)))
    return gathered(directory, TensorInfo("w", dtype, whole.shape), pieces)


def gathered(directory: Path, info: TensorInfo, pieces: Sequence[Piece]) -> Gathered:
    tensors = {info.name: Pieced.of(info, pieces)}
    return Gathered(label="x", directory=directory, files=(), tensors=tensors, notes=())


def numbered(shape: tuple[int, ...], dtype: str) -> "np.ndarray":
    return np.arange(math.prod(shape)).reshape(shape).astype(DTYPES[dtype])


@given(tensor=tensors(), edges=st.tuples(st.integers(0, 2500), st.integers(0, 2500)))
def test_any_range_of_any_grid_of_boxes_is_that_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    tensor: tuple[str, tuple[int, ...], list[list[int]]],
    edges: tuple[int, int],
) -> None:
    dtype, shape, grid = tensor
    whole = numbered(shape, dtype)
    checkpoint = stored_in_pieces(tmp_path_factory.mktemp("pieces"), whole, dtype, grid)
    first, stop = sorted(edge % (whole.size + 1) for edge in edges)
    buffer = bytearray((stop - first) * whole.itemsize)
    checkpoint.read_into("w", first * whole.itemsize, memoryview(buffer))
    assert bytes(buffer) == whole.reshape(-1)[first:stop].tobytes()


def test_flat_pieces_cross_rows(tmp_path: Path) -> None:
    whole = numbered((5, 3), "F32")
    flat = whole.reshape(-1)
    pieces = []
    for number, (low, high) in enumerate([(0, 4), (4, 4), (4, 11), (11, 15)]):
        (tmp_path / str(number)).write_bytes(flat[low:high].tobytes())
        info = TensorInfo("w", "F32", (high - low,))
        pieces.append(Piece(str(number), StoredTensor(info, 0), (low,)))
    checkpoint = gathered(tmp_path, TensorInfo("w", "F32", (5, 3)), pieces)
    assert checkpoint.read_small("w") == whole.tobytes()
    assert checkpoint.files_of("w") == {"0", "2", "3"}


def test_a_piece_may_have_strides(tmp_path: Path) -> None:
    whole = numbered((4, 6), "BF16")
    (tmp_path / "0").write_bytes(whole[:, :4].T.tobytes())
    (tmp_path / "1").write_bytes(whole[:, 4:].tobytes())
    pieces = [
        Piece("0", StoredTensor(TensorInfo("w", "BF16", (4, 4)), 0, (1, 4)), (0, 0)),
        Piece("1", StoredTensor(TensorInfo("w", "BF16", (4, 2)), 0), (0, 4)),
    ]
    checkpoint = gathered(tmp_path, TensorInfo("w", "BF16", (4, 6)), pieces)
    assert checkpoint.read_small("w") == whole.tobytes()


def piece(file: str, shape: tuple[int, ...], start: tuple[int, ...], dtype: str = "U8") -> Piece:
    return Piece(file, StoredTensor(TensorInfo("w", dtype, shape), 0), start)


@pytest.mark.parametrize(
    "pieces, reason",
    [
        ([piece("0", (2, 4), (0, 0))], "the files hold 8 of its 16 elements"),
        ([piece("0", (4, 4), (0, 0)), piece("1", (1, 4), (0, 0))], "lie in two files"),
        ([piece("0", (2, 4), (0, 0)), piece("1", (2, 4), (1, 0))], "lie in two files"),
        (
            [piece("0", (2, 3), (0, 0)), piece("1", (3, 2), (1, 2)), piece("2", (2, 2), (2, 0))],
            "lie in two files",
        ),
        ([piece("0", (4, 4), (1, 0))], r"what 0 holds of it reaches out of \[4, 4\]"),
        ([piece("0", (4, 4), (-1, 0))], "reaches out of"),
        ([piece("0", (9,), (0,)), piece("1", (9,), (7,))], "lie in two files|reaches out of"),
        ([piece("0", (16,), (1,))], "reaches out of"),
        ([piece("0", (4, 4), (0, 0), "I8")], "it is U8, and I8 in 0"),
    ],
)
def test_pieces_that_do_not_cover_each_element_once_are_refused(
    pieces: list[Piece], reason: str
) -> None:
    with pytest.raises(PartsDoNotFit, match=reason):
        Pieced.of(TensorInfo("w", "U8", (4, 4)), pieces)


def test_tensors_of_the_same_pieces_are_tied_and_others_are_not() -> None:
    info = TensorInfo("w", "U8", (4, 4))
    left, right = (Pieced.of(info, [piece("0", (16,), (0,))]) for _ in range(2))
    assert left.place == right.renamed("v").place
    assert left.place != Pieced.of(info, [piece("1", (16,), (0,))]).place

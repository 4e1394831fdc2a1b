"""What torch reads as plain tensors is read byte for byte, without torch."""

import io
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.serialization import get_crc32_options, set_crc32_options

from tests.support.pace import examples
from weightsmith.formats.tensors import StoredTensor, TensorInfo, dtype_bits
from weightsmith.formats.torch_zip import TorchTable, read_torch_table
from weightsmith.fs import PositionedFile, Readable, open_for_reading

Opened = Callable[..., PositionedFile]

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "C64": torch.complex64,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
    "C128": torch.complex128,
}

CODES = {dtype: code for code, dtype in DTYPES.items()}

NAMES = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("\"'\\/.\n\0"), max_size=8
).filter(lambda name: name not in {"__metadata__", "state_dict", "model", "module"})

PLAIN_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
    | st.sampled_from([torch.Size([1, 2]), torch.float16, torch.uint16, torch.bool]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(st.text("ab") | st.integers() | st.none(), inner, max_size=3)
        | st.dictionaries(st.text("ab"), inner, max_size=3).map(OrderedDict)
    ),
    max_leaves=8,
)


CHANGES = ["turn", "cut", "step", "select", "widen"]

SHAPES = st.lists(st.integers(2, 4), min_size=2, max_size=3) | st.lists(
    st.integers(0, 3), max_size=3
)


@st.composite
def storages(draw: st.DrawFn) -> torch.Tensor:
    """A contiguous tensor of any dtype with arbitrary bits."""
    dtype, shape = draw(st.sampled_from(sorted(DTYPES))), draw(SHAPES)
    nbytes = TensorInfo("", dtype, tuple(shape)).nbytes
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    high = 2 if dtype == "BOOL" else 256
    flat = torch.randint(high, (nbytes,), dtype=torch.uint8, generator=generator)
    return flat.view(DTYPES[dtype]).reshape(shape)


@st.composite
def views(draw: st.DrawFn, base: torch.Tensor) -> torch.Tensor:
    """A tensor on the storage of `base`: turned, cut, stepped, reshaped, or a parameter."""
    view = base
    for change in draw(st.lists(st.sampled_from(CHANGES), max_size=3)):
        if view.dim() == 0:
            break
        axis = draw(st.integers(0, view.dim() - 1))
        match change:
            case "turn":
                view = view.transpose(axis, draw(st.integers(0, view.dim() - 1)))
            case "cut":
                start = draw(st.integers(0, view.shape[axis]))
                length = draw(st.integers(0, view.shape[axis] - start))
                view = view.narrow(axis, start, length)
            case "step":
                view = view[(slice(None),) * axis + (slice(draw(st.integers(0, 2)), None, 2),)]
            case "select" if view.shape[axis]:
                view = view.select(axis, draw(st.integers(0, view.shape[axis] - 1)))
            case "widen":
                view = view.unsqueeze(axis)
    if draw(st.booleans()):
        parameter = torch.nn.Parameter(view, requires_grad=False)
        if draw(st.booleans()):
            parameter.partition_dim = 0  # type: ignore[attr-defined]  # as Megatron does
        return parameter
    return view


@st.composite
def state_dicts(draw: st.DrawFn) -> dict[str, object]:
    bases = draw(st.lists(storages(), min_size=1, max_size=3))
    tensors = st.sampled_from(bases).flatmap(views)
    content: dict[str, object] = {}
    content |= draw(st.dictionaries(NAMES, tensors, min_size=1, max_size=5))
    content |= draw(st.dictionaries(NAMES, PLAIN_VALUES, max_size=2))
    return draw(st.sampled_from([dict, OrderedDict]))(content)


def stored_bytes(path: Path, stored: StoredTensor) -> bytes:
    """A tensor's bytes in row-major order, from nothing but what the table says."""
    itemsize = dtype_bits(stored.info.dtype) // 8
    if stored.strides is None:
        return path.read_bytes()[stored.offset : stored.offset + stored.info.nbytes]
    strides = tuple(step * itemsize for step in stored.strides)
    elements: np.ndarray = np.ndarray(
        stored.info.shape, f"V{itemsize}", path.read_bytes(), stored.offset, strides
    )
    return elements.tobytes()


def torch_bytes(tensor: torch.Tensor) -> bytes:
    if tensor.numel() == 0:
        return b""
    flat = torch.empty(tensor.numel(), dtype=tensor.dtype)
    flat.copy_(tensor.detach().reshape(-1))
    return bytes(flat.view(torch.uint8).tolist())


def read(path: Path) -> TorchTable:
    return read_torch_table(open_for_reading(path))


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def assert_same_as_torch(path: Path, *, inside: str | None = None) -> TorchTable:
    content = torch.load(path, weights_only=True)
    return assert_table(path, content if inside is None else content[inside])


def assert_table(path: Path, content: Mapping[str, object]) -> TorchTable:
    expected = {
        name: (CODES[value.dtype], tuple(value.shape), torch_bytes(value))
        for name, value in content.items()
        if isinstance(value, torch.Tensor)
    }
    table = read(path)
    assert {
        stored.info.name: (stored.info.dtype, stored.info.shape, stored_bytes(path, stored))
        for stored in table.tensors
    } == expected
    assert len(table.tensors) == len(expected)
    offsets = [stored.offset for stored in table.tensors]
    assert offsets == sorted(offsets)
    assert read_torch_table(open_for_reading(path), far=True).tensors == table.tensors
    return table


@settings(max_examples=examples(100))
@given(state_dicts(), st.sampled_from([2, 3, 4, 5]))
def test_every_state_dict_comes_out_as_torch_loads_it(
    tmp_path: Path, content: dict[str, object], protocol: int
) -> None:
    path = tmp_path / "pytorch_model.bin"
    with path.open("wb") as file:
        torch.save(content, file, pickle_protocol=protocol)
    table = assert_table(path, content)
    if protocol == 2:
        assert_same_as_torch(path)
    plain = [name for name, value in content.items() if not isinstance(value, torch.Tensor)]
    assert list(table.left) == plain


def test_a_models_state_dict_with_its_metadata_is_read(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    state = model.state_dict()
    assert state._metadata  # type: ignore[attr-defined]  # for which torch writes BUILD
    torch.save(state, tmp_path / "model.bin")
    table = assert_same_as_torch(tmp_path / "model.bin")
    assert len(table.tensors) == 7
    assert table.left == ()


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "module"])
def test_the_map_of_tensors_may_lie_one_level_down(tmp_path: Path, wrapper: str) -> None:
    content = {"epoch": 3, wrapper: {"w": torch.ones(2), "step": 1}, "optimizer": {"lr": 0.1}}
    torch.save(content, tmp_path / "model.bin")
    table = assert_same_as_torch(tmp_path / "model.bin", inside=wrapper)
    assert table.left == ("epoch", "optimizer", "step")


def test_tensors_at_the_top_hide_those_below(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1), "model": {"v": torch.ones(2)}}, tmp_path / "model.bin")
    table = read(tmp_path / "model.bin")
    assert [stored.info.name for stored in table.tensors] == ["w"]
    assert table.left == ("model",)


def test_a_wrapper_without_tensors_is_passed_over(tmp_path: Path) -> None:
    torch.save({"state_dict": {"n": 1}, "model": {"w": torch.ones(2)}}, tmp_path / "model.bin")
    table = read(tmp_path / "model.bin")
    assert [stored.info.name for stored in table.tensors] == ["w"]
    assert table.left == ("state_dict",)


@pytest.mark.parametrize("content", [{}, OrderedDict(), {"epoch": 1}, {"model": {}}])
def test_a_file_without_tensors_is_an_empty_table(opened: Opened, content: object) -> None:
    assert read_torch_table(opened(saved(content))).tensors == ()


def test_two_names_on_one_storage_have_the_same_place(tmp_path: Path) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    content = {"embed": weight, "head": weight, "row": weight[1], "turned": weight.T}
    torch.save(content, tmp_path / "model.bin")
    places = {s.info.name: s for s in assert_same_as_torch(tmp_path / "model.bin").tensors}
    assert places["embed"].offset == places["head"].offset == places["turned"].offset
    assert places["row"].offset == places["embed"].offset + 12
    assert places["row"].strides is None
    assert places["turned"].strides == (1, 3)


def test_a_small_view_of_a_large_storage_is_its_own_bytes(tmp_path: Path) -> None:
    everything = torch.arange(5000, dtype=torch.int32)
    torch.save({"norm": everything[4096:4100]}, tmp_path / "model.bin")
    (stored,) = assert_same_as_torch(tmp_path / "model.bin").tensors
    assert stored.info.nbytes == 16


def test_strides_of_dimensions_of_one_do_not_count(tmp_path: Path) -> None:
    tensor = torch.arange(6.0).as_strided((1, 3, 1, 2), (99, 2, 0, 1))
    torch.save({"w": tensor}, tmp_path / "model.bin")
    (stored,) = assert_same_as_torch(tmp_path / "model.bin").tensors
    assert stored.strides is None


def test_the_folder_in_the_archive_may_have_any_name(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(3)}, tmp_path / "consolidated.00.pth")
    with zipfile.ZipFile(tmp_path / "consolidated.00.pth") as archive:
        assert "consolidated.00/data.pkl" in archive.namelist()
    assert_same_as_torch(tmp_path / "consolidated.00.pth")


@pytest.fixture
def no_checksums() -> Iterator[None]:
    before = get_crc32_options()
    set_crc32_options(compute_crc32=False)
    yield
    set_crc32_options(before)


def test_a_file_saved_without_checksums_is_read(tmp_path: Path, no_checksums: None) -> None:
    torch.save({"w": torch.ones(3)}, tmp_path / "model.bin")
    assert_same_as_torch(tmp_path / "model.bin")


def test_the_directory_tells_files_apart_by_their_checksums(opened: Opened) -> None:
    first, again, other = (
        read_torch_table(opened(saved({"w": torch.full((64,), value)}))).directory
        for value in (1.0, 1.0, 2.0)
    )
    assert first == again
    assert first != other


class Counting(Readable):
    """A file that counts what is read of it."""

    def __init__(self, file: PositionedFile) -> None:
        self.path, self._file = file.path, file
        self.offsets: list[int] = []

    @property
    def size(self) -> int:
        return self._file.size

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.offsets.append(offset)
        self._file.read_into(offset, buffer)


def test_of_a_far_file_no_tensor_is_looked_at(tmp_path: Path) -> None:
    content = {f"layer.{number}": torch.ones(number + 1, 7) for number in range(100)}
    torch.save(content, tmp_path / "model.bin")
    near, far = (Counting(open_for_reading(tmp_path / "model.bin")) for _ in range(2))
    assert read_torch_table(near).tensors == read_torch_table(far, far=True).tensors
    assert len(near.offsets) == len(far.offsets) + 100


def test_where_torch_did_not_write_the_archive_its_headers_tell(tmp_path: Path) -> None:
    content = {f"layer.{number}": torch.ones(number + 1, 7) for number in range(9)}
    (tmp_path / "in.bin").write_bytes(saved(content))
    with (
        zipfile.ZipFile(tmp_path / "in.bin") as old,
        zipfile.ZipFile(tmp_path / "out.bin", "w", zipfile.ZIP_STORED) as new,
    ):
        for name in reversed(old.namelist()):
            new.writestr("archive/" + name.partition("/")[2], old.read(name))
    assert assert_table(tmp_path / "out.bin", content).tensors


def test_the_vectors_are_read_as_torch_reads_them() -> None:
    shards = [*Path("tests/vectors/vicuna_v0/delta").glob("*.bin")]
    shards += Path("tests/vectors/meta_llama1_2shards/meta").rglob("*.pth")
    assert len(shards) == 4
    for path in shards:
        assert assert_same_as_torch(path).tensors

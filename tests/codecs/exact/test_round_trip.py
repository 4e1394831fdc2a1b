"""Whatever the bits of base and target are, the target comes back bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.exact_payloads import (
    PATHS,
    Content,
    by_path,
    content,
    decode,
    encode,
    noise,
    restored,
    stepped,
)
from tests.support.pace import examples
from weightsmith.checkpoint.digest import SPAN_NBYTES, span_count
from weightsmith.codecs.base import Range
from weightsmith.formats.tensors import DTYPE_BITS, TensorInfo

CASTABLE = ("F16", "BF16", "F32")


@pytest.fixture(autouse=True, params=PATHS)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whatever the compiled part is here, if there is one."""
    name: str = request.param
    by_path(name, monkeypatch)
    return name


@pytest.mark.parametrize("dtype", DTYPE_BITS)
def test_every_dtype_comes_back(dtype: str) -> None:
    base = content(dtype, noise(24 * 1000))
    for target in (noise(24 * 1000, 1), stepped(base.data, dtype), base.data, bytes(24 * 1000)):
        assert restored(base, content(dtype, target)) == target
        assert restored(None, content(dtype, target)) == target


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_every_pattern_of_16_bits_comes_back(dtype: str) -> None:
    """NaNs with all they carry, negative zero, subnormals and infinities among them."""
    every = np.arange(1 << 16, dtype="<u2")
    shuffled = np.random.default_rng(0).permutation(every)
    for base in (every, shuffled, every ^ 1, every ^ 0x8000):
        for target in (every, shuffled):
            expected = target.tobytes()
            assert restored(content(dtype, base.tobytes()), content(dtype, expected)) == expected


@pytest.mark.parametrize("base", ["F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"])
def test_every_pair_of_bytes_comes_back(base: str) -> None:
    first, second = (axis.astype(np.uint8).tobytes() for axis in np.indices((256, 256)))
    assert restored(content(base, first), content(base, second)) == second


@pytest.mark.parametrize("dtype, kind, tiny", [("F32", "<f4", 1e-45), ("F64", "<f8", 5e-324)])
def test_special_values_come_back(dtype: str, kind: str, tiny: float) -> None:
    values = [0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, tiny, -tiny, 1.0, -3e38]
    first = np.repeat(np.array(values, kind), len(values))
    second = np.tile(np.array(values, kind), len(values))
    second.view(f"u{second.itemsize}")[::7] += 1  # NaNs carry something, infinities become NaNs
    expected = second.tobytes()
    assert restored(content(dtype, first.tobytes()), content(dtype, expected)) == expected


@pytest.mark.parametrize("dtype", ["F32", "F16", "BOOL", "F8_E4M3"])
def test_a_tensor_without_elements_has_a_payload_without_spans(dtype: str) -> None:
    empty = content(dtype, b"", (0, 7))
    payload = encode(empty, empty)
    assert payload == b"exact@1\n"
    assert decode(empty, payload, empty.info) == b""


@pytest.mark.parametrize("dtype", ["F64", "BF16", "I64", "U8"])
def test_a_scalar_comes_back(dtype: str) -> None:
    width = DTYPE_BITS[dtype] // 8
    base, target = content(dtype, noise(width), ()), content(dtype, noise(width, 1), ())
    assert restored(base, target) == target.data
    assert restored(None, target) == target.data


@pytest.mark.sampled(24)
@pytest.mark.parametrize("extra", [-1, 0, 1, 2])
@pytest.mark.parametrize("dtype", ["F8_E4M3", "BF16", "F32", "U8"])
def test_lengths_around_a_span_come_back(dtype: str, extra: int) -> None:
    nbytes = SPAN_NBYTES + extra * DTYPE_BITS[dtype] // 8
    base = content(dtype, noise(nbytes))
    target = content(dtype, stepped(base.data, dtype))
    assert span_count(nbytes) == (2 if extra > 0 else 1)
    assert restored(base, target) == target.data


def test_spans_decode_one_by_one_and_in_part() -> None:
    nbytes = 2 * SPAN_NBYTES + 4242
    base = content("F16", noise(nbytes))
    target = content("F16", stepped(base.data, "F16"))
    payload = encode(base, target)
    for start, stop in (
        (SPAN_NBYTES, 2 * SPAN_NBYTES),
        (2 * SPAN_NBYTES, nbytes),
        (0, 1),
        (1001, 2003),
        (SPAN_NBYTES - 3, SPAN_NBYTES + 3),
        (5, nbytes - 5),
    ):
        wanted = [Range(start, stop)]
        assert decode(base, payload, target.info, wanted) == target.data[start:stop]


@pytest.mark.parametrize("rows", [3, 40, 41, 60])
@pytest.mark.parametrize("dtypes", [("BF16", "BF16"), ("F32", "F16"), ("U8", "U8")])
def test_a_vocabulary_that_grew_or_shrank_shares_its_rows(
    rows: int, dtypes: tuple[str, str]
) -> None:
    ours, theirs = (DTYPE_BITS[dtype] // 8 for dtype in dtypes)
    base = content(dtypes[0], noise(40 * 64 * ours), (40, 64))
    target = content(dtypes[1], noise(rows * 64 * theirs, 1), (rows, 64))
    assert restored(base, target) == target.data
    if dtypes[0] == dtypes[1]:
        shared = base.data[: rows * 64 * ours] + noise(max(rows - 40, 0) * 64 * ours)
        grown = content(dtypes[1], shared, (rows, 64))
        assert len(encode(base, grown)) < 100 + 2 * max(rows - 40, 0) * 64 * ours
        assert restored(base, grown) == shared


def test_rows_beyond_the_base_fill_spans_of_their_own() -> None:
    base = content("BF16", noise(1000 * 1024 * 2), (1000, 1024))
    target = content("BF16", noise(3000 * 1024 * 2, 1), (3000, 1024))
    assert restored(base, target) == target.data


@pytest.mark.parametrize("source", CASTABLE)
@pytest.mark.parametrize("dtype", CASTABLE)
def test_a_base_of_another_dtype_predicts_the_target(source: str, dtype: str) -> None:
    import torch

    names = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
    weights = torch.randn(5000, generator=torch.Generator().manual_seed(0)).to(names[source])

    def as_content(tensor: torch.Tensor, kind: str) -> Content:
        return content(kind, tensor.view(torch.uint8).numpy().tobytes())

    base, target = as_content(weights, source), as_content(weights.to(names[dtype]), dtype)
    payload = encode(base, target)
    assert payload == b"exact@1\n" + bytes(4)  # a cast alone leaves nothing to store
    assert decode(base, payload, target.info) == target.data
    other = content(dtype, noise(target.info.nbytes))
    assert restored(base, other) == other.data


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Content | None, Content]:
    dtype = draw(st.sampled_from([each for each, bits in DTYPE_BITS.items() if bits >= 8]))
    width = DTYPE_BITS[dtype] // 8
    rows, columns = draw(st.integers(0, 40)), draw(st.integers(1, 9))
    data = draw(st.binary(min_size=rows * columns * width, max_size=rows * columns * width))
    target = content(dtype, data, (rows, columns))
    if draw(st.booleans()):
        source = draw(st.sampled_from(CASTABLE)) if dtype in CASTABLE else dtype
        nbytes = draw(st.integers(0, 40)) * columns * DTYPE_BITS[source] // 8
        other = draw(st.binary(min_size=nbytes, max_size=nbytes))
        shape = (nbytes * 8 // DTYPE_BITS[source] // columns, columns)
        return content(source, other, shape), target
    changed = bytearray(data)
    for at in draw(st.lists(st.integers(0, max(len(data) - 1, 0)), max_size=5)):
        changed[at : at + 1] = bytes([draw(st.integers(0, 255))]) if data else b""
    return content(dtype, bytes(changed), (rows, columns)), target


@settings(max_examples=examples(150))
@given(pairs())
def test_any_target_comes_back_from_any_base(pair: tuple[Content | None, Content]) -> None:
    base, target = pair
    assert restored(base, target) == target.data


def test_the_same_inputs_give_the_same_payload() -> None:
    base = content("BF16", noise(100_000))
    target = content("BF16", stepped(base.data, "BF16"))
    assert encode(base, target) == encode(base, target)


def test_a_payload_never_gains_more_than_its_table_and_a_byte_a_span() -> None:
    nbytes = SPAN_NBYTES + 1000
    for dtype in ("F16", "F32", "F8_E5M2", "I32"):
        for base in (None, content(dtype, noise(nbytes, 2))):
            payload = encode(base, content(dtype, noise(nbytes)))
            assert len(payload) <= 8 + 2 * (4 + 1) + nbytes


def test_the_rule_says_what_it_makes() -> None:
    from weightsmith.codecs.exact.codec import Exact

    payload = TensorInfo("model.norm.weight", "U8", (99,))
    assert Exact("BF16", "32000,4096").signature([payload]) == TensorInfo(
        "model.norm.weight", "BF16", (32000, 4096)
    )
    assert Exact("F32", "").signature([payload]).shape == ()
    assert Exact("F32", "0").signature([payload]).shape == (0,)

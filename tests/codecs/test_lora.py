"""The rule *lora*: the same bits wherever spans are cut, rounded where it says."""

import itertools
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from tests.support.spans import CODES, decoded
from weightsmith.codecs.lora.codec import Lora
from weightsmith.codecs.lora.deltas import BLOCK_ROWS
from weightsmith.codecs.lora.steps import Flag, Step, format_steps, parse_steps
from weightsmith.errors import DtypeNotSummable
from weightsmith.formats.tensors import TensorInfo

DORA: frozenset[Flag] = frozenset({"dora"})


def factors(rows: int, columns: int, rank: int, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A base in float16, and A and B for it."""
    torch.manual_seed(seed)
    a, b = torch.randn(rank, columns) * 0.1, torch.randn(rows, rank) * 0.1
    return (torch.randn(rows, columns) * 0.02).half(), a, b


@pytest.mark.parametrize("rounding", ["once", "peft"])
@pytest.mark.parametrize("steps", ["linear*0.5", "linear+dora*2.0", "linear*0.3; linear*3.0"])
def test_no_bit_depends_on_where_spans_are_cut(steps: str, rounding: str) -> None:
    rows, columns = 3 * BLOCK_ROWS + 17, 12
    base, a, b = factors(rows, columns, 8)
    tensors = [base, *((a, b, torch.rand(rows) + 1) if "dora" in steps else (a, b))]
    if ";" in steps:
        tensors += [a * 2, b]
    codec = Lora("F16", rounding, steps)
    whole = decoded(codec, tensors)
    for span_elements in (7, columns, columns * BLOCK_ROWS - 3, 250):
        assert torch.equal(decoded(codec, tensors, span_elements), whole)


RANKS = [1, 3, 16, 64, 257]
SHAPES = [
    (1, 300),
    (300, 1),
    (150, 48),
    (BLOCK_ROWS - 1, 100),
    (BLOCK_ROWS, 100),
    (2 * BLOCK_ROWS - 1, 65),
    (1000, 333),
    (333, 1000),
]


def kinds_that_differ(rows: int, columns: int, rank: int) -> list[str]:
    """Of those that are made in blocks, which do not have the bits of the whole product."""
    base, a, b = factors(rows, columns, rank)
    base = base.float()
    turned, product = base.T.contiguous(), (b @ a) * 1.5
    expected = {
        "linear": (base, base + product),
        "transposed": (turned, turned + product.T),
        "embedding": (turned, turned + product.T),
    }
    return [
        kind
        for kind, (start, whole) in expected.items()
        if not torch.equal(decoded(Lora("F32", "peft", f"{kind}*1.5"), [start, a, b]), whole)
    ]


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("rows, columns", SHAPES)
def test_a_product_in_blocks_is_the_whole_product(rows: int, columns: int, rank: int) -> None:
    assert not kinds_that_differ(rows, columns, rank)


@pytest.mark.slow
def test_it_is_the_whole_product_on_processors_without_avx_512_too() -> None:
    """Which cut a product into other parts; Intel's library takes what it is told to take."""
    program = """
from tests.codecs.test_lora import *
cases = [(*shape, rank) for shape in SHAPES for rank in RANKS]
print([(case, kinds) for case in cases if (kinds := kinds_that_differ(*case))])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", ["transposed", "embedding"])
@pytest.mark.parametrize("shape", [(40, 300), (300, 40), (2000, 90)], ids=str)
def test_norms_over_columns_are_those_of_the_whole_tensor(
    shape: tuple[int, int], kind: str
) -> None:
    base, a, b = factors(*shape, 4)
    turned, magnitude = base.T.contiguous(), torch.rand(shape[0]) + 1
    total = turned + (b @ a).T * 1.5
    norm = torch.linalg.norm(total.T, dim=1)
    expected = ((magnitude / norm) * total).half()
    codec = Lora("F16", "peft", f"{kind}+dora*1.5")
    assert torch.equal(decoded(codec, [turned, a, b, magnitude]), expected)
    assert torch.equal(decoded(codec, [turned, a, b, magnitude], 77), expected)


def test_norms_of_infinite_columns_say_nothing_and_are_infinite() -> None:
    base, a, b = factors(8, 20, 2)
    turned = base.float().T.contiguous()
    turned[3, 1] = float("inf")
    merged = decoded(Lora("F32", "once", "transposed+dora*1.0"), [turned, a, b, torch.ones(8)])
    assert merged[3, 1].isnan()
    assert torch.all(merged[:3, 1] == 0)
    assert torch.all(merged[:, 2:].isfinite())


def test_dora_over_columns_behind_another_step_takes_its_result() -> None:
    base, a, b = factors(50, 200, 4)
    turned, magnitude = base.T.contiguous(), torch.rand(50) + 1
    first = (turned + (b @ a).T * 2.0).half()
    total = first + (b @ a).T
    expected = ((magnitude / torch.linalg.norm(total.T, dim=1)) * total).half()
    codec = Lora("F16", "peft", "transposed*2.0; transposed+dora*1.0")
    assert torch.equal(decoded(codec, [turned, a, b, a, b, magnitude]), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["linear", "embedding"])
def test_once_is_the_exact_sum_rounded_once(kind: str, dtype: torch.dtype) -> None:
    base, a, b = factors(200, 90, 16)
    base = base.to(dtype)
    if kind == "embedding":
        base = base.T.contiguous()
    product = (b.double() @ a.double()) * 2.0
    exact = base.double() + (product.T if kind == "embedding" else product)
    merged = decoded(Lora(CODES[dtype], "once", f"{kind}*2.0"), [base, a, b])
    # Only where the exact sum lies as good as between two numbers may float32 decide otherwise.
    size = base.double().abs() + ((b.abs() @ a.abs()) * 2.0).reshape(-1, 90).max()
    away = (merged.double() - exact).abs()
    nearest = (exact.to(dtype).double() - exact).abs()
    assert torch.all(away <= nearest + size * 2**-22)
    assert (merged == exact.to(dtype)).float().mean() > 0.999


def test_once_carries_float32_between_adapters_and_peft_rounds_each() -> None:
    base, a, b = factors(100, 60, 8)
    tensors, steps = [base, a, b, -a, b], "linear*2.0; linear*2.0"
    once, peft = (decoded(Lora("F16", rounding, steps), tensors) for rounding in ("once", "peft"))
    assert torch.equal(once, base)  # what the second takes away is all that the first had added
    first = (base + (b @ a) * 2.0).half()
    assert torch.equal(peft, (first + (b @ -a) * 2.0).half())
    assert not torch.equal(peft, base)


def test_a_named_dtype_is_rounded_to_at_the_end_and_by_peft_at_the_beginning() -> None:
    base, a, b = factors(100, 60, 8)
    wide = base.float() * 1.0001
    delta = (b @ a) * 2.0
    tensors = [wide, a, b]
    assert torch.equal(
        decoded(Lora("BF16", "once", "linear*2.0"), tensors), (wide + delta).bfloat16()
    )
    expected = (wide.bfloat16() + delta).bfloat16()
    assert torch.equal(decoded(Lora("BF16", "peft", "linear*2.0"), tensors), expected)


def test_a_base_in_float64_is_computed_in_float64() -> None:
    base, a, b = factors(100, 60, 8)
    expected = base.double() + (b.double() @ a.double()) * 2.0
    for rounding in ("once", "peft"):
        merged = decoded(Lora("F64", rounding, "linear*2.0"), [base.double(), a, b])
        assert torch.equal(merged, expected)


def test_rows_are_set_and_added() -> None:
    base, values = torch.arange(12.0).reshape(4, 3), -torch.arange(9.0).reshape(3, 3)
    steps = format_steps([Step("rows", rows=(5, 1, 4))])
    for span_elements in (1, 3, 4, 100):
        merged = decoded(Lora("F32", "once", steps), [base, values], span_elements)
        assert torch.equal(merged[[5, 1, 4]], values)
        assert torch.equal(merged[[0, 2, 3]], base[[0, 2, 3]])


def test_a_bias_is_scaled_and_added() -> None:
    base, bias = torch.randn(100).half(), torch.randn(100)
    merged = decoded(Lora("F16", "peft", "bias*0.25"), [base, bias], 7)
    assert torch.equal(merged, (base + bias * 0.25).half())


@pytest.mark.parametrize("place", [0, 1])
def test_bytes_are_refused(place: int) -> None:
    infos = [TensorInfo(str(i), "U8" if i == place else "F16", (4, 4)) for i in range(3)]
    with pytest.raises(DtypeNotSummable):
        Lora("F16", "once", "linear*1.0").signature(infos)


@pytest.mark.parametrize(
    "steps, text",
    [
        ([Step("linear", 2.0)], "linear*2.0"),
        ([Step("embedding", 1 / 3, DORA)], "embedding+dora*0.3333333333333333"),
        ([Step("bias", 1e-05), Step("rows", rows=(7, 8, 9, 3, 2))], "bias*1e-05; rows:7-9,3,2"),
        ([Step("rows", rows=(0,))], "rows:0"),
    ],
)
def test_steps_are_spelt_and_read_back(steps: list[Step], text: str) -> None:
    assert format_steps(steps) == text
    assert list(parse_steps(text)) == steps


def test_many_steps_are_read_back_with_their_exact_scales() -> None:
    kinds = itertools.product(
        ["linear", "transposed", "embedding"], [frozenset(), DORA], [0.1, 7 / 3]
    )
    steps = [Step(kind, scale, flags) for kind, flags, scale in kinds]  # type: ignore[arg-type]
    assert list(parse_steps(format_steps(steps))) == steps

"""cast rounds once as torch does; copy moves every bit; and who claims to be exact is."""

import itertools

import pytest
import torch

from tests.support.spans import CODES, DTYPES, FLOATS, assert_bits, decoded, random_tensor, raw
from weightsmith.codecs.add import Add
from weightsmith.codecs.cast import Cast
from weightsmith.codecs.copy import Copy
from weightsmith.codecs.registry import codec
from weightsmith.errors import DtypeNotSummable
from weightsmith.formats.tensors import DTYPE_BITS, TensorInfo

AWKWARD = [0.0, -0.0, 1.0, 65504.0, 65520.0, 1e-8, -6e-8, 3.4e38, 1e300, float("inf"), 0.1, 2 / 3]


@pytest.mark.parametrize("source, wanted", [*itertools.product(FLOATS, FLOATS)])
@pytest.mark.parametrize("span", [1, 5, 1000])
def test_cast_is_what_torch_does(span: int, source: str, wanted: str) -> None:
    awkward = torch.tensor(AWKWARD, dtype=torch.float64).to(DTYPES[source])
    tensor = torch.cat([random_tensor(source, 500), awkward])
    assert_bits(decoded(Cast(wanted), [tensor], span), tensor.to(DTYPES[wanted]))


@pytest.mark.parametrize("dtype", sorted(DTYPE_BITS.keys() - set(FLOATS)))
def test_cast_refuses_what_is_no_float_by_name(dtype: str) -> None:
    with pytest.raises(DtypeNotSummable, match=f"mask is {dtype}"):
        Cast("F16").signature([TensorInfo("mask", dtype, (8,))])


@pytest.mark.parametrize("dtype", CODES, ids=str)
def test_copy_moves_every_bit_of_every_dtype(dtype: torch.dtype) -> None:
    """NaN payloads and negative zeros too."""
    every = torch.arange(256, dtype=torch.uint8).repeat(2, 8)
    tensor = (every % 2).bool() if dtype == torch.bool else every.view(dtype)
    assert_bits(decoded(Copy(), [tensor], 7), tensor)


def test_a_codec_is_as_exact_as_it_says() -> None:
    """Exact: all 65536 patterns come back. Not exact: there is one that does not."""
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    target = patterns.view(torch.float16)
    for rule, params in (("copy@1", {}), ("cast@1", {"dtype": "BF16"})):
        found = decoded(codec(rule, params), [target], 999)
        assert (raw(found.to(torch.float16)) == raw(target)) == codec(rule, params).exact
    base = random_tensor("F16", 2**16)
    with_delta = decoded(Add("F16", "F16"), [base, target - base], 999)
    assert (raw(with_delta) == raw(target)) == Add.exact


def test_the_registry_makes_a_rule_of_an_id_and_its_settings() -> None:
    assert codec("add@1", {"compute": "F32", "dtype": "F16"}) == Add("F32", "F16")
    assert codec("cast@1", {"dtype": "F16"}) == Cast("F16")
    assert codec("copy@1", {}) == Copy()
    for unknown in ("add", "add@0", "add@2", "nothing@1"):
        with pytest.raises(KeyError):
            codec(unknown, {})

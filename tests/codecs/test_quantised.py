"""Packed numbers become what their formats say, in layouts that no vector has."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tests.support.spans import CODES, decoded, info_of
from weightsmith.codecs.base import Codec
from weightsmith.codecs.quantised.blocks import DequantizeBlocks
from weightsmith.codecs.quantised.packed import (
    AWQ_ORDER,
    DequantizeAwq,
    DequantizeGptq,
    DequantizeWords,
)
from weightsmith.codecs.quantised.values import floats


def run(codec: Codec, tensors: Sequence[Tensor], *, pieces: int = 1) -> Tensor:
    """The whole output, made in so many pieces, as float32."""
    numel = codec.signature([info_of(tensor) for tensor in tensors]).numel
    return decoded(codec, tensors, -(-numel // pieces)).float()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_every_byte_of_a_narrow_float_is_what_torch_has(dtype: torch.dtype) -> None:
    raw = torch.arange(256, dtype=torch.uint8)
    ours = torch.from_numpy(floats(memoryview(bytearray(raw.numpy())), CODES[dtype]))
    theirs = raw.view(dtype).float()
    assert torch.equal(torch.nan_to_num(ours, nan=7.5e8), torch.nan_to_num(theirs, nan=7.5e8))


@pytest.mark.parametrize("pieces", [1, 5, 37])
def test_blocks_begin_anew_in_each_matrix_of_a_stack(pieces: int) -> None:
    stack = torch.randn(3, 10, 14).to(torch.float8_e4m3fn)
    scale = torch.rand(3, 3, 4) + 0.5  # blocks of 4, the last ones of 2
    expected = torch.empty(stack.shape)
    for e, row, column in torch.cartesian_prod(*map(torch.arange, stack.shape)):
        expected[e, row, column] = stack[e, row, column].float() * scale[e, row // 4, column // 4]
    found = run(DequantizeBlocks("BF16", "4", "4"), [stack, scale], pieces=pieces)
    assert torch.equal(found, expected.bfloat16().float())


def test_one_scale_may_be_for_a_whole_weight() -> None:
    weight, scale = torch.randn(6, 8).to(torch.float8_e5m2), torch.tensor([0.25])
    found = run(DequantizeBlocks("F32", "6", "8"), [weight, scale])
    assert torch.equal(found, weight.float() / 4)


def test_zero_points_are_taken_off_first() -> None:
    weight = torch.randint(-128, 128, (6, 8), dtype=torch.int8)
    scale, zero = torch.rand(6, 2), torch.randint(-8, 8, (6, 2), dtype=torch.int8)
    found = run(DequantizeBlocks("F32", "1", "4"), [weight, scale, zero])
    wide = [each.repeat_interleave(4, dim=1).float() for each in (scale, zero)]
    assert torch.equal(found, (weight.float() - wide[1]) * wide[0])


def words(values: Tensor, bits: int) -> Tensor:
    """Integers packed along the first dimension, the first one lowest."""
    each = 32 // bits
    rows = values.reshape(-1, each, *values.shape[1:]).long()
    shifts = (torch.arange(each) * bits).reshape(1, -1, *[1] * (values.dim() - 1))
    packed = (rows << shifts).sum(1)
    return torch.where(packed >= 2**31, packed - 2**32, packed).int()


@pytest.mark.parametrize("plus", [0, 1])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_gptq_of_any_width_is_unpacked(bits: int, plus: int) -> None:
    into, out, groups = 64, 32, 4
    values = torch.randint(0, 2**bits, (into, out))
    zeros = torch.randint(0, 2**bits - 1, (groups, out))
    scale = torch.rand(groups, out).half()
    order = torch.randint(0, groups, (into,), dtype=torch.int32)
    given = [words(values, bits), words(zeros.T, bits).T, scale, order]
    found = run(DequantizeGptq("F32", str(bits), str(plus)), given, pieces=7)
    point = zeros[order.long()] + plus
    expected = (scale[order.long()].float() * (values - point)).half().float().T
    assert torch.equal(found, expected)


def test_gptq_without_an_order_takes_groups_one_after_another() -> None:
    values, zeros = torch.randint(0, 16, (64, 8)), torch.full((2, 8), 7)
    scale = torch.rand(2, 8).half()
    found = run(DequantizeGptq("F32", "4", "1"), [words(values, 4), words(zeros.T, 4).T, scale])
    expected = (scale.repeat_interleave(32, 0).float() * (values - 8)).half().float().T
    assert torch.equal(found, expected)


def test_awq_has_an_order_of_its_own() -> None:
    values, zeros = torch.randint(0, 16, (32, 16)), torch.randint(0, 16, (2, 16))
    scale = torch.rand(2, 16).half()
    order = list(AWQ_ORDER)
    packed = [
        words(t.reshape(len(t), -1, 8)[..., order].flatten(1).T, 4).T for t in (values, zeros)
    ]
    found = run(DequantizeAwq("F32"), [*packed, scale], pieces=5)
    wide = [each.repeat_interleave(16, 0) for each in (scale, zeros)]
    assert torch.equal(found, (wide[0].float() * (values - wide[1])).half().float().T)


@pytest.mark.parametrize("bits", [4, 8])
def test_words_may_end_within_a_row(bits: int) -> None:
    values = torch.randint(0, 2**bits, (6, 20))
    padded = torch.nn.functional.pad(values, (0, -20 % (32 // bits)))
    scale = torch.rand(6, 5).bfloat16()
    found = run(DequantizeWords("F32", str(bits), "20"), [words(padded.T, bits).T, scale], pieces=3)
    wide = scale.repeat_interleave(4, 1).float()
    expected = ((values - 2 ** (bits - 1)) * wide).bfloat16().float()
    assert torch.equal(found, expected)

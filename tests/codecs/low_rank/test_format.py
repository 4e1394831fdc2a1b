"""A prediction has the same bits everywhere, and a payload is what the format says."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.low_rank_matrices import (
    Changed,
    decode,
    digest_of_predictions,
    encode,
    integers,
    merged,
    with_integers,
)
from tests.support.low_rank_reader import read_payload
from tests.support.pace import examples
from weightsmith.codecs.base import Range
from weightsmith.codecs.low_rank.factors import EXACT, Right
from weightsmith.codecs.low_rank.round_once import FORMATS, round_once, values_of
from weightsmith.formats.tensors import TensorInfo

FROZEN = Path(__file__).parent / "frozen"
CASES = json.loads((FROZEN / "cases.json").read_bytes())
"""By name: dtype of the base, dtype and shape of the target, and the rank of its factors."""
SHAPES = {"plain": (20, 15), "stack": (3, 10, 8), "convolution": (6, 5, 3, 3)}


def own_factors(changed: Changed, rank: int, **head: object) -> bytes:
    """The payload of a tensor with random factors."""
    geometry = changed.geometry
    rights = [integers(geometry.columns, rank, seed=n) for n in range(geometry.slices)]
    left = integers(geometry.slices * geometry.rows, rank, seed=9)
    return encode(changed, with_integers(changed, left, rights, head))


@pytest.mark.parametrize("name", CASES)
def test_frozen_payloads_are_read_for_ever(name: str) -> None:
    base_dtype, dtype, shape, rank = CASES[name]
    data = {path.suffix[1:]: path.read_bytes() for path in FROZEN.glob(f"{name}.*")}
    base, target = (TensorInfo("w", each, tuple(shape)) for each in (base_dtype, dtype))
    none = np.zeros(0)
    changed = Changed(base, target, data["base"], data["target"], none, none)
    assert decode(changed, data["payload"], rank) == data["target"]
    read = read_payload(data["payload"], data["base"], base_dtype, dtype, tuple(shape))
    assert read == data["target"]


@pytest.mark.sampled(8)
@pytest.mark.parametrize("dtypes", ["F16 F16", "BF16 BF16", "F32 F32", "F32 BF16", "F16 F32"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("product_rounded", [False, True])
def test_the_plain_reader_reads_what_is_written(
    dtypes: str, shape: tuple[int, ...], product_rounded: bool
) -> None:
    base_dtype, dtype = dtypes.split()
    changed = merged(shape, 2, dtype, base_dtype=base_dtype)
    payload = own_factors(changed, 3, product_rounded=product_rounded)
    assert read_payload(payload, changed.base_data, base_dtype, dtype, shape) == changed.target_data
    assert decode(changed, payload, 3) == changed.target_data


def test_spans_are_decoded_alone_and_in_parts() -> None:
    changed = merged((1100, 1000), 2, "BF16")
    payload = own_factors(changed, 2)
    edges = [0, 6, 2 << 20, (2 << 20) + 2, changed.target.nbytes]
    for start, stop in pairwise(edges):
        expected = changed.target_data[start:stop]
        assert decode(changed, payload, 2, [Range(start, stop)]) == expected


def test_a_row_may_be_longer_than_a_span() -> None:
    changed = merged((2, 700_000), 1, "F32")
    payload = own_factors(changed, 1)
    assert decode(changed, payload, 1) == changed.target_data


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_where_the_base_is_no_number_it_is_what_is_predicted(dtype: str) -> None:
    changed = merged((40, 30), 2, dtype)
    form = FORMATS[dtype]
    special = [form.infinity, form.infinity | 1, form.magnitude, form.infinity | form.magnitude + 1]
    base = np.frombuffer(changed.base_data, f"<u{form.width // 8}").copy()
    base[:4] = special
    target = base.copy()
    target[:4] ^= 1
    for data in (base.tobytes(), target.tobytes()):
        odd = Changed(
            changed.base, changed.target, base.tobytes(), data, changed.left, changed.right
        )
        assert decode(odd, own_factors(odd, 2), 2) == data


@given(
    rank=st.integers(1, 40),
    rows=st.integers(1, 70),
    columns=st.integers(1, 700),
    bits=st.integers(1, 23),
    seed=st.integers(0, 1000),
)
@settings(max_examples=examples(60), deadline=None)
def test_products_are_exact(rank: int, rows: int, columns: int, bits: int, seed: int) -> None:
    left = integers(rows, rank, seed=seed, bits=bits)
    right = integers(columns, rank, seed=seed + 1, bits=bits)
    products = Right(right, -30).products(left)
    assert (products == np.ldexp((left @ right.T).astype(np.float64), -30)).all()
    order = np.random.default_rng(seed).permutation(rank)
    assert (Right(right[:, order], -30).products(left[:, order]) == products).all()


def test_products_are_exact_up_to_the_limit_and_refused_beyond() -> None:
    most = (EXACT - 1) >> 26
    right = Right(np.array([[1 << 26]]), 0)
    assert right.products(np.array([[most]])).tolist() == [[float(most << 26)]]
    with pytest.raises(ValueError, match="not exact"):
        right.products(np.array([[most + 1]]))


KERNELS = ["Haswell", "SkylakeX", "Zen", "Nehalem", "Prescott"]
"""Of OpenBLAS: with fused multiplication and without, of 512 bits to 128."""


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kernel, threads", [*((each, 1) for each in KERNELS), ("Haswell", 4)])
def test_predictions_are_the_same_from_every_kernel_and_any_number_of_threads(
    kernel: str, threads: int
) -> None:
    code = "from tests.support.low_rank_matrices import *; print(digest_of_predictions())"
    environment = {"OPENBLAS_CORETYPE": kernel, "OPENBLAS_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == digest_of_predictions()


def test_predictions_are_the_same_where_subnormal_floats_count_as_zero() -> None:
    """As in a process that loaded a library built for speed: torch can set the same mode."""
    import torch

    patterns = np.arange(0, 0x8000, dtype="<u2")
    bits = np.arange(0, 1 << 23, 997, dtype="<u4")
    expected = [values_of(patterns, "BF16"), values_of(bits, "F32")]
    rounded = [round_once(each.copy(), "BF16") for each in expected]
    try:
        assert torch.set_flush_denormal(True)
        assert (np.array([1e-40], "<f4") * np.float32(1))[0] == 0  # so it is
        found = [values_of(patterns, "BF16"), values_of(bits, "F32")]
        again = [round_once(each.copy(), "BF16") for each in found]
    finally:
        torch.set_flush_denormal(False)
    for first, second in zip([*expected, *rounded], [*found, *again], strict=True):
        assert first.tobytes() == second.tobytes()

"""Whether a tensor is its base plus a product is found out from the two alone."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.low_rank_matrices import Changed, decode, digest_of_factors, encode, merged
from tests.support.pace import examples
from weightsmith.codecs.low_rank.making import Prediction
from weightsmith.codecs.low_rank.matrix_pair import MatrixPair
from weightsmith.codecs.low_rank.range_finder import begin, may_be_low_rank
from weightsmith.codecs.low_rank.round_once import round_once, values_of
from weightsmith.codecs.low_rank.weighted_fit import small_of


def plain(shape: tuple[int, ...], dtype: str, size: float) -> Changed:
    """A tensor of which every weight moved by itself, as in a full fine-tune."""
    changed = merged(shape, 1, dtype)
    rng = np.random.default_rng(5)
    base = values_of(np.frombuffer(changed.base_data, "<u2"), dtype)
    target = round_once(base + rng.normal(0, 0.02 * size, base.size), dtype)
    return replace(changed, target_data=target.tobytes())


def share(changed: Changed, *, given: bool = False) -> float:
    """Size of the payload, as a share of the tensor; it is decoded, too."""
    prediction = changed.predicted(given=given)
    payload = encode(changed, prediction)
    assert decode(changed, payload, prediction.rank) == changed.target_data
    return len(payload) / changed.target.nbytes


@pytest.mark.sampled(2)
@pytest.mark.parametrize("dtype", ["F16", "BF16"])
@pytest.mark.parametrize("rank", [1, 4, 16])
def test_a_merged_lora_is_found_with_its_rank(dtype: str, rank: int) -> None:
    changed = merged((512, 1024), rank, dtype)
    prediction = changed.predicted()
    assert prediction.rank == rank
    assert share(changed) < 0.03 + 0.005 * rank


@pytest.mark.slow
def test_factors_of_a_higher_rank_are_found_in_a_larger_matrix() -> None:
    changed = merged((2048, 2048), 48, "F16")
    assert changed.predicted().rank == 48


@pytest.mark.slow
@pytest.mark.parametrize("dtype, most", [("F16", 0.035), ("BF16", 0.05)])
def test_a_merged_lora_of_a_usual_layer_takes_a_few_percent(dtype: str, most: float) -> None:
    changed = merged((2048, 3072), 16, dtype, size=0.14)
    assert share(changed) < most
    given = changed.predicted(given=True)
    factors = given.start_nbytes + given.factors.left.size * 2.5
    assert share(changed, given=True) < factors / changed.target.nbytes + 0.002


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
@pytest.mark.parametrize("size", [0.001, 0.01, 0.1])
def test_a_full_fine_tune_has_no_factors(dtype: str, size: float) -> None:
    assert plain((512, 1024), dtype, size).find() is None


def test_an_unchanged_tensor_has_no_factors() -> None:
    changed = merged((512, 1024), 1, "F16")
    assert replace(changed, target_data=changed.base_data).find() is None


def test_a_change_of_a_few_weights_has_no_factors() -> None:
    changed = merged((512, 1024), 1, "F16")
    target = np.frombuffer(changed.base_data, "<u2").copy()
    target[::1000] ^= 1
    assert replace(changed, target_data=target.tobytes()).find() is None


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_a_product_that_was_rounded_before_it_was_added_is_told_apart(dtype: str) -> None:
    changed = merged((512, 1024), 4, dtype, size=0.05, product_rounded=True)
    for known in (False, True):
        prediction = changed.predicted(given=known)
        assert prediction.factors.head.product_rounded
    assert share(changed, given=True) < 0.04
    once = merged((512, 1024), 4, dtype, size=0.05)
    assert not once.predicted(given=True).factors.head.product_rounded


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_given_factors_predict_nearly_all(dtype: str) -> None:
    changed = merged((256, 512), 4, dtype)
    prediction = changed.predicted(given=True)
    known, _ = prediction.span(0, memoryview(changed.base_data))
    hits = (known == np.frombuffer(changed.target_data, known.dtype)).mean()
    assert hits > (0.99 if dtype != "F32" else 0.1)


def test_given_factors_of_something_else_are_left_for_those_that_fit() -> None:
    changed = merged((512, 1024), 4, "F16")
    wrong = merged((512, 1024), 4, "F16", seed=1)
    confused = replace(changed, left=wrong.left, right=wrong.right)
    assert share(confused, given=True) == share(changed)


def test_float32_is_predicted_too() -> None:
    assert share(merged((512, 1024), 4, "F32")) < 0.4
    assert share(merged((512, 1024), 4, "BF16", base_dtype="F32")) < 0.06


def test_each_matrix_of_a_stack_has_factors_of_its_own() -> None:
    changed = merged((3, 256, 512), 4, "BF16")
    prediction = changed.predicted()
    assert prediction.rank == 4
    assert len(prediction.factors.rights) == 3
    assert share(changed) < 0.08


def test_matrices_of_a_stack_that_did_not_change_take_nothing() -> None:
    changed = merged((3, 256, 512), 4, "BF16")
    third = len(changed.base_data) // 3
    target = changed.base_data[:third] + changed.target_data[third : 2 * third]
    part = replace(changed, target_data=target + changed.base_data[2 * third :])
    assert share(part) < share(changed) / 2


def test_what_is_no_number_does_not_hide_a_product() -> None:
    changed = merged((512, 1024), 4, "F16")
    base = np.frombuffer(changed.base_data, "<u2").copy()
    target = np.frombuffer(changed.target_data, "<u2").copy()
    base[::4001], target[1::4001] = 0x7E00, 0xFC00
    odd = replace(changed, base_data=base.tobytes(), target_data=target.tobytes())
    assert share(odd) < 0.1


def test_no_factors_are_looked_for_past_a_quarter_of_the_matrix() -> None:
    assert merged((128, 1024), 40, "F16").find() is None


@pytest.mark.parametrize("rank", [0, 3])
def test_a_sample_of_rows_tells_the_rank(rank: int) -> None:
    changed = merged((512, 1024), rank, "BF16") if rank else plain((512, 1024), "BF16", 0.02)
    pair = MatrixPair(changed.geometry, 0, ("BF16", "BF16"), changed.reads)
    assert may_be_low_rank(pair) == bool(rank)
    start = begin(pair)
    assert start is None if not rank else start is not None and start.shape == (1024, rank)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("threads", [3, 1])
def test_the_same_factors_are_found_whatever_the_number_of_threads(threads: int) -> None:
    code = (
        "from tests.support import low_rank_matrices; print(low_rank_matrices.digest_of_factors())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"OPENBLAS_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == digest_of_factors()


@given(
    seed=st.integers(0, 10_000),
    dtype=st.sampled_from(["F16", "BF16", "F32"]),
    wild=st.sampled_from([0.0, 0.001, 0.3, 1.0]),
    still=st.sampled_from([0.0, 0.5, 0.99]),
    size=st.sampled_from([1e-6, 0.02, 1e6]),
)
@settings(max_examples=examples(40), deadline=None)
def test_any_bits_are_coded_with_factors_or_without(
    seed: int, dtype: str, wild: float, still: float, size: float
) -> None:
    """Whatever lies beside a product: any patterns, rows that stayed, changes of any size."""
    changed = merged((256, 257), 3, dtype, size=size, seed=seed)
    rng = np.random.default_rng(seed)
    base, target = (
        np.frombuffer(data, "<u4" if dtype == "F32" else "<u2").copy()
        for data in (changed.base_data, changed.target_data)
    )
    for side in (base, target):
        anywhere = rng.random(side.size) < wild
        side[anywhere] = rng.integers(0, 1 << 8 * side.itemsize, anywhere.sum())
    rows = np.repeat(rng.random(256) < still, 257)
    target[rows] = base[rows]
    odd = replace(changed, base_data=base.tobytes(), target_data=target.tobytes())
    factors = odd.find()
    if factors is not None:
        prediction = Prediction(odd.base, odd.target, factors)
        assert decode(odd, encode(odd, prediction), prediction.rank) == odd.target_data


def test_a_pruned_model_takes_no_more_memory() -> None:
    """Half of its weights are zero, and none of them smaller than the others."""
    changed = merged((1024, 2048), 4, "F16")
    base, target = (
        np.frombuffer(data, "<u2").copy() for data in (changed.base_data, changed.target_data)
    )
    pruned = np.random.default_rng(0).random(base.size) < 0.5
    base[pruned] = target[pruned] = 0
    sparse = replace(changed, base_data=base.tobytes(), target_data=target.tobytes())
    pair = MatrixPair(sparse.geometry, 0, ("F16", "F16"), sparse.reads)
    chosen = small_of(pair, pair.read(0, 1024), 32, 0)
    assert len(chosen.rows) <= 4 * 32 * 1024
    assert len(np.unique(chosen.rows)) == 1024


@pytest.mark.parametrize("shape", [(300, 2000), (2000, 300)])
def test_given_factors_of_more_rank_than_a_payload_may_have_are_left(
    shape: tuple[int, int],
) -> None:
    changed = merged(shape, 301, "F16")
    assert changed.find(given=True) is None

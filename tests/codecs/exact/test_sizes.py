"""A delta is small: near what no coding can go below, and smaller than by XOR."""

import pytest
import torch

from tests.bench.exact import few_changed, trained, xor_planes
from tests.support.exact_payloads import by_path, encode

WEIGHTS = 1 << 20
"""One span; `tests.bench.exact` measures several, and works out the floors."""


FINE_TUNES = pytest.mark.parametrize(
    "dtype, change, floor",
    [
        (torch.float16, 0.05, 0.571),
        (torch.float16, 0.01, 0.426),
        (torch.bfloat16, 0.05, 0.384),
        (torch.bfloat16, 0.01, 0.240),
    ],
)


@FINE_TUNES
def test_a_fine_tune_is_within_one_and_a_half_percent_of_its_entropy(
    dtype: torch.dtype, change: float, floor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_path("plain", monkeypatch)
    base, target = trained(dtype, change, weights=WEIGHTS)
    size = len(encode(base, target))
    assert size / target.info.nbytes < 1.015 * floor
    by_path("none", monkeypatch)
    assert size < len(encode(base, target))


@FINE_TUNES
def test_a_portable_fine_tune_is_near_its_entropy_and_smaller_than_by_xor(
    dtype: torch.dtype, change: float, floor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_path("none", monkeypatch)
    base, target = trained(dtype, change, weights=WEIGHTS)
    size = len(encode(base, target))
    assert size / target.info.nbytes < 1.08 * floor
    assert size < 0.9 * len(xor_planes(base, target))


def test_a_step_that_moves_one_weight_in_a_hundred_is_thirty_times_smaller_than_raw() -> None:
    base, target = few_changed(weights=WEIGHTS)
    assert len(encode(base, target)) * 30 < target.info.nbytes


def test_what_did_not_change_is_stored_as_nothing() -> None:
    base, _ = trained(torch.float16, 0, weights=WEIGHTS)
    assert encode(base, base) == b"exact@1\n" + bytes(4)

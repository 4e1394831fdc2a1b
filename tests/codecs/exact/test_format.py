"""What is written is what the format says, for ever."""

import numpy as np
import pytest

from tests.support.exact_frozen import CASES, frozen
from tests.support.exact_payloads import by_path, content, decode, encode, noise, stepped
from tests.support.exact_reader import BLOCK, SPAN, read_payload


@pytest.mark.parametrize("name", CASES)
def test_frozen_payloads_are_read_for_ever(name: str) -> None:
    base, target, expected, payload = frozen(name)
    assert decode(base, payload, target) == expected


def test_frozen_payloads_have_every_kind_of_span() -> None:
    kinds = {frozen(name)[3][12:13] for name in CASES}  # the first span's first byte
    assert kinds == {b"", b"\1", b"\2", b"\3", b"\4"}


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"cast"}))
def test_the_plain_reader_reads_frozen_payloads(name: str) -> None:
    base, target, expected, payload = frozen(name)
    known = b"" if base is None else base.data
    assert read_payload(payload, known, target.dtype, target.nbytes) == expected


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "F64", "I32"])
def test_the_plain_reader_reads_what_is_written(dtype: str) -> None:
    base = content(dtype, np.random.default_rng(0).normal(0, 0.02, 999).tobytes())
    for target in (noise(7992), stepped(base.data, dtype), base.data[:4000] + noise(3992)):
        payload = encode(base, content(dtype, target))
        assert read_payload(payload, base.data, dtype, 7992) == target


@pytest.mark.slow
def test_the_plain_reader_reads_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    by_path("none", monkeypatch)  # no other kind has blocks
    weights = np.random.default_rng(0).normal(0, 0.02, BLOCK + 9).astype("<f2").tobytes()
    target = stepped(weights, "F16")
    payload = encode(content("F16", weights), content("F16", target))
    assert read_payload(payload, weights, "F16", len(target)) == target


def test_the_plain_reader_reads_several_spans() -> None:
    target = noise(SPAN) + bytes(SPAN) + noise(800)
    payload = encode(None, content("F16", target))
    assert read_payload(payload, b"", "F16", len(target)) == target


def test_rows_that_the_base_lacks_count_as_zero_bits() -> None:
    base, target = content("BF16", noise(600), (30, 10)), content("BF16", noise(900, 1), (45, 10))
    payload = encode(base, target)
    assert read_payload(payload, base.data, "BF16", 900) == target.data

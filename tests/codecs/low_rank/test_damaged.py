"""A damaged payload is named, or decodes to other bytes; it never crashes or eats memory."""

import random
import struct
import tracemalloc
from dataclasses import replace

import pytest

from tests.support.low_rank_matrices import decode, encode, integers, merged, with_integers
from weightsmith.codecs.low_rank.codec import elements_at
from weightsmith.codecs.low_rank.form import MAGIC
from weightsmith.errors import DamagedInput, DeltaInvalid, DeltaUnknown
from weightsmith.formats.tensors import TensorInfo

MEMORY_LIMIT = 8_000_000
"""Bytes; the tensors here have a few thousand."""
CHANGED = merged((40, 30), 3, "BF16")
STACK = merged((3, 20, 10), 2, "F16")
HEAD = len(MAGIC) + 4
"""Where the head of a payload of one span begins."""


def payload_of(rank: int = 3) -> bytes:
    prediction = with_integers(CHANGED, integers(40, rank), [integers(30, rank, seed=1)], {})
    return encode(CHANGED, prediction)


def stack_payload() -> bytes:
    rights = [integers(10, 2, seed=n) for n in range(3)]
    return encode(STACK, with_integers(STACK, integers(60, 2), rights, {}))


def fault(payload: bytes, rank: int = 3) -> DamagedInput | None:
    """What decoding raises; whatever else it may raise fails the test."""
    try:
        decoded = decode(CHANGED, payload, rank)
    except DamagedInput as error:
        return error
    assert len(decoded) == CHANGED.target.nbytes
    return None


def with_head(**settings: int) -> bytes:
    """A payload with something else in its head."""
    payload = bytearray(payload_of())
    names = ("flags", "rank", "exponent", "length")
    values = dict(zip(names, struct.unpack_from("<BIiI", payload, HEAD), strict=True))
    struct.pack_into("<BIiI", payload, HEAD, *{**values, **settings}.values())
    return bytes(payload)


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_flipped_bits_are_named_or_decode_to_other_bytes(every: int) -> None:
    payload = payload_of()
    rng = random.Random(0)
    noticed = 0
    for at in range(0, len(payload), every):
        damaged = bytearray(payload)
        damaged[at] ^= rng.randrange(1, 256)
        error = fault(bytes(damaged))
        noticed += error is not None and "tensor w" in str(error)
    assert noticed >= (HEAD + 8) // every
    assert decode(CHANGED, payload, 3) == CHANGED.target_data


def test_payloads_cut_short_or_drawn_out_are_named() -> None:
    payload = payload_of()
    for length in range(len(payload)):
        assert isinstance(fault(payload[:length]), DamagedInput)
    assert isinstance(fault(payload + b"\0"), DeltaInvalid)


@pytest.mark.parametrize("rank", [0, 31, 512, 513, 2**32 - 1])
def test_a_rank_that_the_matrix_has_no_room_for_is_refused(rank: int) -> None:
    error = fault(with_head(rank=rank), rank)
    assert isinstance(error, DeltaInvalid)
    assert f"factors of rank {rank}, for 40 x 30" in str(error)


def test_factors_of_another_rank_than_the_record_says_are_refused() -> None:
    error = fault(payload_of(), rank=2)
    assert isinstance(error, DeltaInvalid)
    assert "its factors have rank 3, and the record says 2" in str(error)


def test_a_payload_without_factors_is_refused_where_the_record_says_that_it_has_some() -> None:
    error = fault(b"exact@1\n" + payload_of()[len(MAGIC) :])
    assert isinstance(error, DeltaInvalid)
    assert "does not begin as a payload does" in str(error)


def test_a_later_version_of_the_payload_is_named() -> None:
    error = fault(b"low-rank@7\n" + payload_of()[len(MAGIC) :])
    assert isinstance(error, DeltaUnknown)
    assert "low-rank@7" in str(error)


@pytest.mark.parametrize("settings", [{"flags": 2}, {"flags": 255}, {"exponent": 401}])
def test_settings_that_no_writer_makes_are_refused(settings: dict[str, int]) -> None:
    assert isinstance(fault(with_head(**settings)), DeltaInvalid)


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**32 - 1])
def test_factors_of_another_length_are_refused(length: int) -> None:
    tracemalloc.start()
    error = fault(with_head(length=length))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(error, DeltaInvalid)
    assert peak < MEMORY_LIMIT


def test_factors_for_another_shape_are_refused() -> None:
    """Of as many elements, so that the spans fit."""
    payload = payload_of()
    turned = TensorInfo("w", "BF16", (30, 40))
    base = replace(CHANGED.base, shape=(30, 40))
    with pytest.raises(DeltaInvalid, match="tensor w"):
        decode(replace(CHANGED, base=base, target=turned), payload, 3)


def test_factors_for_a_vector_are_refused() -> None:
    flat = TensorInfo("w", "BF16", (1200,))
    with pytest.raises(DeltaInvalid, match="factors for what is no matrix"):
        decode(replace(CHANGED, base=flat, target=flat), payload_of(), 3)


def test_factors_whose_product_is_not_exact_are_refused() -> None:
    left = integers(40, 3, bits=24)
    prediction = with_integers(CHANGED, left, [integers(30, 3, seed=1)], {})
    start = prediction.start_nbytes
    spans = encode(CHANGED, prediction)[start:]
    larger = with_integers(CHANGED, left, [integers(30, 3, seed=1, bits=30)], {})
    payload = larger.start_of([len(spans)]) + spans
    assert "product is not exact" in str(fault(payload))


def test_a_stack_cut_between_its_factors_is_named() -> None:
    payload = stack_payload()
    for length in range(HEAD, len(payload)):
        with pytest.raises(DamagedInput):
            decode(STACK, payload[:length], 2)


def test_a_span_counts_its_elements_from_the_tensors_start() -> None:
    assert elements_at(1, TensorInfo("w", "F32", (1000, 1000))) == (524_288, 1_000_000)

"""A damaged payload is named, or decodes to other bytes; it never crashes, hangs or eats memory."""

import random
import tracemalloc

import pytest
import zstandard

from tests.support.exact_frozen import CASES, frozen
from tests.support.exact_payloads import Content, content, decode, encode, noise
from weightsmith.checkpoint.digest import SPAN_NBYTES
from weightsmith.errors import DamagedInput, DeltaInvalid, DeltaUnknown
from weightsmith.formats.tensors import TensorInfo

MEMORY_LIMIT = 4_000_000
"""Bytes; the tensors here have a few thousand."""


def fault(base: Content | None, payload: bytes, target: TensorInfo) -> DamagedInput | None:
    """What decoding raises; whatever else it may raise fails the test."""
    try:
        decoded = decode(base, payload, target)
    except DamagedInput as error:
        return error
    assert len(decoded) == target.nbytes
    return None


def of_one_span(kind: int, content: bytes) -> bytes:
    span = bytes([kind]) + content
    return b"exact@1\n" + len(span).to_bytes(4, "little") + span


def plane(content: bytes) -> bytes:
    return len(content).to_bytes(4, "little") + content


def places_in(payload: bytes) -> range:
    """All of them, or a thousand and some."""
    return range(0, len(payload), 1 + len(payload) // 1500)


@pytest.mark.sampled(5)
@pytest.mark.parametrize("name", CASES)
def test_flipped_bits_are_named_or_decode_to_other_bytes(name: str) -> None:
    base, target, expected, payload = frozen(name)
    rng = random.Random(name)
    noticed = 0
    for at in places_in(payload):
        damaged = bytearray(payload)
        damaged[at] ^= rng.randrange(1, 256)
        error = fault(base, bytes(damaged), target)
        noticed += error is not None and "tensor w" in str(error)
    assert noticed >= 12  # the form's name and the table at least
    assert decode(base, payload, target) == expected


@pytest.mark.parametrize("name", CASES)
def test_payloads_cut_short_or_drawn_out_are_named(name: str) -> None:
    base, target, _, payload = frozen(name)
    for length in places_in(payload):
        assert isinstance(fault(base, payload[:length], target), DamagedInput)
    assert isinstance(fault(base, payload + b"\0", target), DeltaInvalid)


def test_a_payload_for_another_length_is_named() -> None:
    base = content("BF16", noise(2000))
    payload = encode(base, content("BF16", noise(2000, 1)))
    for size in (900, 999, 1001, 1100):
        assert fault(None, payload, TensorInfo("w", "BF16", (size,))) is not None


@pytest.mark.parametrize("size", [2**20, 2**40, 2**63])
def test_a_frame_that_claims_to_be_huge_is_refused_before_memory_is_asked_for(size: int) -> None:
    frame = zstandard.ZstdCompressor().compress(bytes(1000))
    # Magic, a descriptor for an eight-byte content size in a single segment, that size.
    bomb = frame[:4] + bytes([0b11100000]) + size.to_bytes(8, "little") + frame[6:]
    assert zstandard.frame_content_size(bomb) == size
    payload = of_one_span(1, plane(bomb) + plane(b""))
    tracemalloc.start()
    error = fault(None, payload, TensorInfo("w", "F16", (1000,)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(error, DeltaInvalid)
    assert peak < MEMORY_LIMIT


def test_a_frame_that_names_no_size_is_refused() -> None:
    compressor = zstandard.ZstdCompressor(write_content_size=False)
    payload = of_one_span(1, plane(compressor.compress(bytes(1000))) + plane(b""))
    assert isinstance(fault(None, payload, TensorInfo("w", "F16", (1000,))), DeltaInvalid)


@pytest.mark.parametrize(
    "kind, inside",
    [
        (1, plane(b"")),  # one plane is missing
        (1, plane(b"") * 3),
        (1, plane(b"abc") + plane(b"")),
        (2, b""),
        (2, (1001).to_bytes(4, "little") + plane(b"") * 6),
        (2, (2**32 - 1).to_bytes(4, "little") + plane(b"") * 6),
        (2, (1).to_bytes(4, "little") + plane(b"\xff") * 4 + plane(b"a") * 2),
        (2, (2).to_bytes(4, "little") + plane(b"\1\1") * 4 + plane(b"ab") * 2),
        (3, bytes(1999)),
        (3, bytes(2002)),
    ],
)
def test_a_span_that_contradicts_itself_is_named(kind: int, inside: bytes) -> None:
    payload = of_one_span(kind, inside)
    assert isinstance(fault(None, payload, TensorInfo("w", "F16", (1000,))), DeltaInvalid)


def test_unknown_kinds_and_forms_are_named() -> None:
    target = TensorInfo("w", "F16", (1000,))
    assert "unknown kind 9" in str(fault(None, of_one_span(9, b""), target))
    newer = b"exact@3\n" + of_one_span(3, bytes(2000))[8:]
    error = fault(None, newer, target)
    assert isinstance(error, DeltaUnknown)
    assert "exact@3" in str(error)
    other = b"PK\3\4exac" + newer[8:]
    assert isinstance(fault(None, other, target), DeltaInvalid)


def test_a_span_longer_than_any_can_be_is_refused_before_it_is_read() -> None:
    target = TensorInfo("w", "U8", (SPAN_NBYTES,))
    length = SPAN_NBYTES + 2
    payload = b"exact@1\n" + length.to_bytes(4, "little") + bytes(length)
    assert isinstance(fault(None, payload, target), DeltaInvalid)


def test_damage_asks_for_no_memory() -> None:
    rng = random.Random(0)
    target = TensorInfo("w", "BF16", (500,))
    tracemalloc.start()
    for kind in range(4):
        for _ in range(100):
            payload = of_one_span(kind, rng.randbytes(rng.randrange(200)))
            assert isinstance(fault(None, payload, target), DeltaInvalid)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < MEMORY_LIMIT

"""Spans that are coded by class: every path makes the same bytes, and no payload harms any."""

import random
import sys
import tracemalloc
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.exact_frozen import CASES, frozen
from tests.support.exact_payloads import by_path, content, decode, encode, noise
from tests.support.pace import examples
from weightsmith.codecs.elements import Bits, Elements, elements_of
from weightsmith.codecs.exact import coded, kernel
from weightsmith.codecs.exact.kernel import Kernel
from weightsmith.errors import KernelUnfit

DTYPES = ("F8_E4M3", "F8_E5M2", "F16", "BF16", "F32")
CODED = [name for name in CASES if frozen(name)[3][12:13] == b"\4"]


@pytest.fixture(name="paths")
def compiled_paths() -> list[Kernel]:
    found = kernel.find()
    if found is None:
        pytest.skip("no compiled part here")
    return [replace(found, simd=simd) for simd in range(found.simd + 1)]


def outcome(
    reader: Kernel | ModuleType, payload: bytes, base: Bits | None, like: Bits, elements: Elements
) -> bytes | None:
    """What a path reads, or None if it refuses."""
    out = np.zeros_like(like)
    try:
        reader.decode(memoryview(payload), base, out, elements)
    except ValueError:
        return None
    return out.tobytes()


def every(paths: list[Kernel]) -> list[Kernel | ModuleType]:
    """NumPy's reader too."""
    return [*paths, coded]


def pair(dtype: str, count: int, seed: int, *, change: float = 0.02) -> tuple[Bits, Bits]:
    """Weights and what training made of them, with some of everything that may stand among them."""
    rng = np.random.default_rng(seed)
    elements = elements_of(dtype)
    if elements.nbytes == 1:
        base = rng.integers(0, 256, count).astype("<u1")
        return base, base + rng.integers(-3, 4, count).astype("<u1")
    kind = "<f2" if dtype == "F16" else "<f4"
    weights = rng.normal(0, 0.02, count)
    moved = weights + rng.normal(0, 0.02 * change, count)
    moved[rng.random(count) < 0.01] = rng.choice([0, np.inf, np.nan, 1e-7, -3])
    rows = slice(count // 3, count // 2)
    moved[rows] = weights[rows]
    bits = [each.astype(kind).view(f"<u{np.dtype(kind).itemsize}") for each in (weights, moved)]
    if dtype == "BF16":
        bits = [(each >> 16).astype("<u2") for each in bits]
    return bits[0], bits[1]


@pytest.mark.sampled(20)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 7, 8, 9, 63, 5000, 32767, 32768, 40001])
def test_every_path_writes_the_same_bytes_and_reads_them(
    paths: list[Kernel], dtype: str, count: int
) -> None:
    elements = elements_of(dtype)
    base, target = pair(dtype, count, count)
    for known in (base, None):
        made = {path.encode(known, target, elements) for path in paths}
        assert len(made) == 1
        for reader in every(paths):
            assert (
                outcome(reader, made.copy().pop().payload, known, target, elements)
                == target.tobytes()
            )


@settings(max_examples=examples(60))
@given(st.data())
def test_any_bits_come_back_by_every_path(data: st.DataObject) -> None:
    found = kernel.find()
    if found is None:
        pytest.skip("no compiled part here")
    elements = elements_of(data.draw(st.sampled_from(DTYPES)))
    count = data.draw(st.integers(1, 300))
    sides = st.binary(min_size=count * elements.nbytes, max_size=count * elements.nbytes)
    target = elements.view(memoryview(data.draw(sides)))
    base = elements.view(memoryview(data.draw(sides))) if data.draw(st.booleans()) else None
    payload = found.encode(base, target, elements).payload
    for reader in every([replace(found, simd=simd) for simd in range(found.simd + 1)]):
        assert outcome(reader, payload, base, target, elements) == target.tobytes()


@pytest.mark.parametrize("name", CODED)
def test_what_was_frozen_is_still_written_and_read_by_every_path(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, target, expected, payload = frozen(name)
    by_path("none", monkeypatch)
    assert decode(base, payload, target) == expected
    for path in ("plain", "avx2", "avx512"):
        by_path(path, monkeypatch)
        assert decode(base, payload, target) == expected
        assert encode(base, content(target.dtype, expected, target.shape)) == payload


def test_what_was_frozen_has_every_part_that_there_is() -> None:
    heads = [coded._head(memoryview(frozen(name)[3])[12:], 31) for name in CODED]
    assert {each.lanes for each in heads} == {8, 64}
    assert {each.with_map for each in heads} == {False, True}
    assert any(each.exceptions for each in heads)
    assert {bool(each.low) for each in heads} == {False, True}
    assert {bool(each.zero) for each in heads} == {False, True}
    assert {0, 8} < {each.values for each in heads}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", CODED)
def test_of_a_damaged_payload_every_path_says_the_same(name: str, paths: list[Kernel]) -> None:
    base, target, expected, payload = frozen(name)
    elements = elements_of(target.dtype)
    like = elements.view(memoryview(expected))
    known = None
    if base is not None:
        known = np.zeros_like(like)
        known[: len(base.data) // elements.nbytes] = elements.view(memoryview(base.data))
    rng = random.Random(name)
    span_payload = payload[12:]
    refused = 0
    for trial in range(60):
        damaged = bytearray(span_payload)
        end = len(damaged) if trial % 2 else min(400, len(damaged))  # half of them in the head
        damaged[rng.randrange(end)] ^= 1 << rng.randrange(8)
        if trial % 6 == 0:
            del damaged[rng.randrange(len(damaged)) :]
        found = [outcome(each, bytes(damaged), known, like, elements) for each in every(paths)]
        assert len({*found}) == 1
        refused += found[0] is None
    assert refused > 15


@pytest.mark.parametrize(
    "at, value",
    [
        (2, 9),  # classes
        (3, 16),  # zero bits
        (4, 25),  # low bits
        (4, 16),
        (5, 0),  # lanes
        (5, 16),
        (5, 65),
        (9, 255),  # exceptions
    ],
)
def test_a_head_that_cannot_be_is_refused(paths: list[Kernel], at: int, value: int) -> None:
    base, target = pair("BF16", 5000, 0)
    elements = elements_of("BF16")
    payload = bytearray(paths[0].encode(base, target, elements).payload)
    payload[at] = value
    for reader in every(paths):
        assert outcome(reader, bytes(payload), base, target, elements) is None


def test_frequencies_that_do_not_add_up_are_refused(paths: list[Kernel]) -> None:
    elements = elements_of("BF16")
    target = np.zeros(64, "<u2")
    one = 0b1_000_0000000000000000  # a class of values: it is there, no raw bits, origin 0
    for first, last, lengths in ((128, 128, [11]), (128, 129, [12, 1]), (5, 4, []), (0, 255, [])):
        bits = format(1, "b")
        bits += "000" + "0" * 16 + f"{first:08b}"[::-1] + f"{last:08b}"[::-1]
        before = 0
        for length in lengths:
            bits += "0" * (2 * (length - before) - (length < before)) + "1" + "0" * (length - 1)
            before = length
        packed = np.packbits([int(bit) for bit in bits], bitorder="little").tobytes()
        head = bytes([4, 0, 0, 0, 0, 8, 0, 0, 0, 0]) + packed + bytes(40)
        for reader in every(paths):
            assert outcome(reader, head, None, target, elements) is None, (first, last, one)


def test_exceptions_that_a_payload_only_claims_ask_for_no_memory(paths: list[Kernel]) -> None:
    base, target = pair("F16", 5000, 0)
    elements = elements_of("F16")
    payload = bytearray(paths[0].encode(base, target, elements).payload)
    payload[6:10] = b"\xff" * 4
    tracemalloc.start()
    for reader in every(paths):
        assert outcome(reader, bytes(payload), base, target, elements) is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


def test_elements_that_no_kernel_goes_through_are_refused(paths: list[Kernel]) -> None:
    buffer = np.zeros(6, "<u2")
    module = paths[0].module
    for form in ((3, 7, 255), (2, 1, 255), (2, 7, 127), (2, 15, 0), (4, 22, 511), (0, 0, 0)):
        with pytest.raises(ValueError, match="no kernel"):
            module.encode(None, buffer, *form, False)
        with pytest.raises(ValueError, match="no kernel"):
            module.decode(b"", None, buffer, *form, False)
    for base, target in ((buffer[:5], buffer), (None, buffer[:0]), (None, buffer.view("u1")[:3])):
        with pytest.raises(ValueError, match="no kernel"):
            module.encode(base, target, 2, 7, 255, False)
    with pytest.raises(ValueError, match="contiguous"):
        module.encode(None, buffer[::2], 2, 7, 255, False)
    with pytest.raises(TypeError, match="read-write"):
        module.decode(b"", None, bytes(4), 2, 7, 255, False)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F16", "BF16", "F32"])
@pytest.mark.parametrize("share", [0.0005, 0.01, 0.04])
def test_a_step_that_changes_few_elements_is_read_alike_by_every_path(
    paths: list[Kernel], dtype: str, share: float
) -> None:
    """Lanes in which nothing changed are not looked up; damage among them is found all the same."""
    elements = elements_of(dtype)
    base, _ = pair(dtype, 6001, 5)
    target = base.copy()
    rng = np.random.default_rng(6)
    places = rng.random(len(base)) < share
    target[places] += rng.choice([1, -1], int(places.sum())).astype(base.dtype)
    payload = paths[0].encode(base, target, elements).payload
    assert payload[4] == 0  # no bits are stored apart, which every element would have to take
    for reader in every(paths):
        assert outcome(reader, payload, base, target, elements) == target.tobytes()
    refused = 0
    for at in range(0, len(payload), max(1, len(payload) // 40)):
        damaged = bytearray(payload)
        damaged[at] ^= 1 << at % 8
        found = [outcome(each, bytes(damaged), base, target, elements) for each in paths]
        assert len({*found}) == 1
        refused += found[0] is None
    assert refused > 5


def test_changes_that_no_sample_sees_come_back(paths: list[Kernel]) -> None:
    """A fuzzer found it: the only group that is not the base's lies between two samples."""
    elements = elements_of("F16")
    base = np.frombuffer(noise(80_000), "<u2")
    target = base.copy()
    target[512:576] ^= 0x155
    payload = paths[0].encode(base, target, elements).payload
    for reader in every(paths):
        assert outcome(reader, payload, base, target, elements) == target.tobytes()


def test_a_class_too_rare_for_its_symbols_to_reach_comes_back(paths: list[Kernel]) -> None:
    """A fuzzer found it: one huge element, and zeros that fill up its group."""
    elements = elements_of("F32")
    base = np.array([1e27], "<f4").view("<u4")
    payload = paths[0].encode(base, base + 1, elements).payload
    for reader in every(paths):
        assert outcome(reader, payload, base, base, elements) == (base + 1).tobytes()


def test_without_a_compiled_part_nothing_is_coded_by_class(monkeypatch: pytest.MonkeyPatch) -> None:
    by_path("none", monkeypatch)
    base, target = (content("BF16", each.tobytes()) for each in pair("BF16", 5000, 0))
    assert encode(base, target).startswith(b"exact@1\n")


def test_spans_that_hardly_changed_are_told_by_their_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    by_path("plain", monkeypatch)
    base = np.frombuffer(noise(40_000), "<u2")
    few = base.copy()
    few[::999] ^= 1
    payload = encode(content("BF16", base.tobytes()), content("BF16", few.tobytes()))
    assert payload[12] == 2


def test_zeros_among_values_are_left_to_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pruned tensor: what is stored apart of each element would be wasted on its zeros."""
    by_path("plain", monkeypatch)
    _, weights = pair("BF16", 40_000, 0)
    weights[np.random.default_rng(0).random(len(weights)) < 0.5] = 0
    assert encode(None, content("BF16", weights.tobytes()))[12] in {1, 2}


def test_a_compiled_part_of_another_version_is_named(
    monkeypatch: pytest.MonkeyPatch, paths: list[Kernel]
) -> None:
    other = ModuleType("weightsmith.codecs.exact._kernel")
    vars(other).update(INTERFACE=99, SIMD=0)
    monkeypatch.setitem(sys.modules, other.__name__, other)
    monkeypatch.setattr("weightsmith.codecs.exact._kernel", other)
    kernel.find.cache_clear()
    try:
        with pytest.raises(KernelUnfit, match="interface 99"):
            kernel.find()
    finally:
        kernel.find.cache_clear()

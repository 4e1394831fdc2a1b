"""A reader of low-rank payloads in plain Python, written from docs/reference/delta-format.md alone.

Integers and fractions, and Python's own float64; nothing of the package but the reader of spans
beside it, which is as plain.
"""

import struct
from fractions import Fraction
from math import ldexp, prod

from tests.support.exact_reader import SPAN, elements, in_bytes, read_planes, read_span

FLOATS = {"F16": (2, 10, 15), "BF16": (2, 7, 127), "F32": (4, 23, 127)}
"""Bytes, bits of the fraction, bias of the exponent."""
MAGIC = b"low-rank@1\n"


def read_payload(
    payload: bytes, base: bytes, base_dtype: str, dtype: str, shape: tuple[int, ...]
) -> bytes:
    """The target's bytes."""
    slices = shape[0] if len(shape) == 3 else 1
    rows = shape[1] if len(shape) == 3 else shape[0]
    columns = prod(shape) // (slices * rows)
    width = FLOATS[dtype][0]
    nbytes = prod(shape) * width
    assert payload.startswith(MAGIC)
    count = -(-nbytes // SPAN)
    at = len(MAGIC) + 4 * count
    lengths = struct.unpack(f"<{count}I", payload[len(MAGIC) : at])
    flags, rank = struct.unpack_from("<BI", payload, at)
    heads = [struct.unpack_from("<iI", payload, at + 5 + 8 * n) for n in range(slices)]
    at += 5 + 8 * slices
    rights, exponents = [], []
    for exponent, length in heads:
        right, rest = read_integers(payload[at : at + length], columns * rank)
        assert not rest
        rights.append(right)
        exponents.append(exponent)
        at += length
    known = elements(base, FLOATS[base_dtype][0])
    target = b""
    for n, length in enumerate(lengths):
        start, stop = n * SPAN // width, min((n + 1) * SPAN, nbytes) // width
        first, last = start // columns, -(-stop // columns)
        left, rest = read_integers(payload[at : at + length], (last - first) * rank)
        predicted = []
        for place in range(start, stop):
            row, column = divmod(place, columns)
            matrix = row // rows
            u = left[(row - first) * rank : (row - first + 1) * rank]
            v = rights[matrix][column * rank : (column + 1) * rank]
            product = ldexp(sum(a * b for a, b in zip(u, v, strict=True)), exponents[matrix])
            predicted.append(predict(known[place], base_dtype, product, dtype, rounded=flags == 1))
        target += read_span(rest, in_bytes(predicted, width), dtype, (stop - start) * width)
        at += length
    assert at == len(payload)
    return target


def read_integers(content: bytes, count: int) -> tuple[list[int], bytes]:
    folded, rest = read_planes(content, count, 4)
    return [-(each >> 1) if each & 1 else each >> 1 for each in folded], rest


def predict(base: int, base_dtype: str, product: float, dtype: str, *, rounded: bool) -> int:
    """Of finite bases; no test has another here."""
    if rounded:
        product = value(round_to(product, dtype), dtype)
    return round_to(value(base, base_dtype) + product, dtype)


def value(pattern: int, dtype: str) -> float:
    """Of a finite float; of both zeros 0."""
    nbytes, fraction, bias = FLOATS[dtype]
    sign, magnitude = divmod(pattern, 1 << 8 * nbytes - 1)
    exponent, rest = divmod(magnitude, 1 << fraction)
    if exponent:
        rest += 1 << fraction
    size = ldexp(rest, max(exponent, 1) - bias - fraction)
    return -size if sign and size else size


def round_to(number: float, dtype: str) -> int:
    """The pattern of the nearest float, the even one of two; infinity past the largest."""
    nbytes, fraction, bias = FLOATS[dtype]
    size = abs(Fraction(number))
    exponent = 1 - bias
    while size >= Fraction(2) ** (exponent + 1):
        exponent += 1
    steps = round(size / Fraction(2) ** (exponent - fraction))  # Python's, to nearest even
    pattern = steps + (exponent + bias - 1 << fraction)
    infinity = (1 << 8 * nbytes - 1) - (1 << fraction)
    sign = number < 0
    return min(pattern, infinity) | sign << 8 * nbytes - 1

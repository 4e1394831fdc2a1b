"""A reader of payloads in plain Python, written from docs/delta-format.md alone.

Slow, and short enough to be checked by eye. What it reads, the format says; it shares nothing with
the package but the zstd library.
"""

import zstandard

SPAN = 2 * 1024 * 1024
BLOCK = 262144
WIDTHS = {"F16": 2, "BF16": 2, "F32": 4, "C64": 4, "F64": 8, "C128": 8}
EXPONENTS = {
    "F8_E5M2": (2, 5),
    "F8_E5M2FNUZ": (2, 5),
    "F8_E4M3": (3, 4),
    "F8_E4M3FNUZ": (3, 4),
    "F16": (10, 5),
    "BF16": (7, 8),
    "F32": (23, 8),
    "C64": (23, 8),
}
"""The place of the exponent's lowest bit, and how many bits it has."""


def read_payload(payload: bytes, base: bytes, dtype: str, nbytes: int) -> bytes:
    """The target's bytes; `base` has the target's dtype, and is empty where there is none."""
    assert payload[:8] == b"exact@1\n"
    count = -(-nbytes // SPAN)
    lengths = [number(payload[8 + 4 * i : 12 + 4 * i]) for i in range(count)]
    at = 8 + 4 * count
    target = b""
    for i, length in enumerate(lengths):
        place = slice(i * SPAN, min((i + 1) * SPAN, nbytes))
        known = base[place]
        target += read_span(payload[at : at + length], known, dtype, place.stop - place.start)
        at += length
    assert at == len(payload)
    return target


def read_span(span: bytes, base: bytes, dtype: str, nbytes: int) -> bytes:
    width = WIDTHS.get(dtype, 1)
    size = nbytes // width
    known = elements(base, width) + [0] * (size - len(base) // width)
    if not span:
        return in_bytes(known, width)
    if span[0] == 3:
        return span[1:]
    kind, ceiling, content = span[0], span[1], span[2:]
    centre = int("80" * (width - 1) or "0", 16) if base else 0
    if kind == 1:
        stream, content = read_planes(content, size, width)
    else:
        assert kind == 2
        changes, content = number(content[:4]), content[4:]
        gaps, content = read_planes(content, changes, 4)
        values, content = read_planes(content, changes, width)
        stream, at = [centre] * size, 0
        for gap, value in zip(gaps, values, strict=True):
            stream[at + gap] = value
            at += gap + 1
    assert content == b""
    bits = 8 * width
    if not base:
        return in_bytes([value >> 1 | (value & 1) << bits - 1 for value in stream], width)
    target = known.copy()
    for place, value in zip(order(known, dtype, ceiling), stream, strict=True):
        target[place] = (known[place] + value - centre) % 2**bits
    return in_bytes(target, width)


def order(known: list[int], dtype: str, ceiling: int) -> list[int]:
    """Places of a span's elements as the stream has them."""
    if dtype not in EXPONENTS:
        assert ceiling == 0
        return list(range(len(known)))
    shift, length = EXPONENTS[dtype]
    classes = [min(max(ceiling - (bits >> shift) % 2**length, 0), 7) for bits in known]
    even = len(known) // 2 * 2
    blocks = []
    for start in range(0, even, BLOCK):
        pairs = range(start, min(start + BLOCK, even), 2)
        blocks.append(sorted(pairs, key=lambda i: (classes[i + 1], classes[i])))
    places: list[int] = []
    for each in range(8):
        for block in blocks:
            places += [i for i in block if classes[i] == each]
            places += [i + 1 for i in block if classes[i + 1] == each]
    return places + list(range(even, len(known)))


def read_planes(content: bytes, count: int, width: int) -> tuple[list[int], bytes]:
    values = [0] * count
    for _ in range(width):
        length, content = number(content[:4]), content[4:]
        plane, content = content[:length], content[length:]
        if length == 0:
            plane = bytes(count)
        elif length != count:
            plane = zstandard.ZstdDecompressor().decompress(plane)
        assert len(plane) == count
        values = [value << 8 | byte for value, byte in zip(values, plane, strict=True)]
    return values, content


def number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def elements(data: bytes, width: int) -> list[int]:
    return [number(data[i : i + width]) for i in range(0, len(data), width)]


def in_bytes(values: list[int], width: int) -> bytes:
    return b"".join(value.to_bytes(width, "little") for value in values)

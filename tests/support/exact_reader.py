"""A reader of payloads in plain Python, written from docs/reference/delta-format.md alone.

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
    assert payload[:8] in {b"exact@1\n", b"exact@2\n"}
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
    if span[0] == 4:
        return in_bytes(read_coded(span, known, dtype), width)
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


def read_coded(span: bytes, known: list[int], dtype: str) -> list[int]:
    shift, length = EXPONENTS[dtype]
    nbytes = WIDTHS.get(dtype, 1)
    modulus, top = 2 ** (8 * nbytes), 2 ** (8 * nbytes - 1)
    ceiling, values, zero, low, lanes = span[1:6]
    has_map, lanes = lanes >= 128, lanes % 128
    bits = Bits(span[10:])
    classes = []
    for number_of_class in range(8):
        raw, origin, frequencies = 0, 0, [0] * 256
        if bits.take(1):
            raw = bits.take(3)
            origin = bits.take(16) if number_of_class >= values else 0
            frequencies = read_frequencies(bits)
        classes.append((raw, origin, frequencies))
    content = span[10 + bits.nbytes :]
    groups = -(-len(known) // lanes)
    padded = known + [0] * (groups * lanes - len(known))
    skipped = [0] * groups
    if has_map:
        bits, content = Bits(content), content[-(-groups // 8) :]
        skipped = [bits.take(1) for _ in range(groups)]
    lows = Bits(content)
    content = content[(groups - sum(skipped)) * lanes * low // 8 :]
    states = elements(content[: 4 * lanes], 4)
    content = content[4 * lanes :]
    count = number(span[6:10])
    exceptions = elements(content[: count * nbytes], nbytes)
    words = elements(content[count * nbytes :], 2)
    exceptions.reverse()
    words.reverse()
    target = padded.copy()
    for i, base in enumerate(padded):
        if skipped[i // lanes]:
            continue
        own = min(max(ceiling - (base >> shift) % 2**length, 0), 7)
        raw, origin, frequencies = classes[own]
        state = states[i % lanes]
        slot, symbol, start = state % 2048, 0, 0
        while start + frequencies[symbol] <= slot:
            start += frequencies[symbol]
            symbol += 1
        state = frequencies[symbol] * (state // 2048) + slot - start
        rest = state % 2**raw
        state //= 2**raw
        if state < 65536:
            state = state * 65536 + words.pop()
        states[i % lanes] = state
        apart = lows.take(low)
        if symbol == 0:
            target[i] = (base + exceptions.pop()) % modulus
        elif own < values:
            step = ((((symbol - 128 << raw) + rest) << low) + apart) << zero
            target[i] = (base + step) % modulus
        else:
            value = (((symbol % 128 + origin << raw) + rest << low) + apart) << zero
            flip = top if symbol < 128 else 0
            target[i] = ((base & top) + value + flip) % modulus
    assert not words
    assert not exceptions
    assert states == [65536] * lanes
    return target[: len(known)]


def read_frequencies(bits: "Bits") -> list[int]:
    found = [0] * 256
    first, last = bits.take(8), bits.take(8)
    length = 0
    for symbol in range(first, last + 1):
        step = 0
        while not bits.take(1):
            step += 1
        length += -(step + 1) // 2 if step % 2 else step // 2
        found[symbol] = 2 ** (length - 1) + bits.take(length - 1) if length else 0
    assert sum(found) == 2048
    return found


class Bits:
    """Bits, the lowest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    @property
    def nbytes(self) -> int:
        return -(-self.at // 8)

    def take(self, count: int) -> int:
        taken = 0
        for i in range(count):
            taken |= (self.data[self.at // 8] >> self.at % 8 & 1) << i
            self.at += 1
        return taken


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

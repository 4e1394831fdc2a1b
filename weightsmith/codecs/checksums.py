"""Checksums that other tools give for a tensor's bytes, from the first to the last."""

import zlib
from typing import Final, Literal, Protocol, get_args

from blake3 import blake3

Algorithm = Literal["xxh3-128", "blake3", "adler32"]
ALGORITHMS: Final[tuple[Algorithm, ...]] = get_args(Algorithm)


class Hasher(Protocol):
    """Takes bytes in order, and gives a checksum of all of them."""

    def update(self, data: bytes | memoryview, /) -> object:
        """Take the next bytes."""
        ...

    def hexdigest(self) -> str:
        """The checksum of all bytes so far, as lower-case hex digits."""
        ...


class _Adler32:
    """Adler-32, as eight hex digits."""

    def __init__(self) -> None:
        self._value = 1

    def update(self, data: bytes | memoryview, /) -> None:
        self._value = zlib.adler32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


def hasher(algorithm: Algorithm) -> Hasher:
    """A new hasher of this algorithm."""
    match algorithm:
        case "xxh3-128":
            import xxhash

            return xxhash.xxh3_128()
        case "blake3":
            return blake3()
        case "adler32":
            return _Adler32()

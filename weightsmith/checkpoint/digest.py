"""Digests that do not depend on the container: of spans, tensors and whole checkpoints."""

from collections.abc import Mapping, Sequence
from typing import Final

from blake3 import blake3

from weightsmith.formats.tensors import TensorInfo

SPAN_NBYTES: Final = 2 * 1024 * 1024
"""One span: 2 MiB of a tensor, counted from its first byte.

The unit of reading, arithmetic, hashing and compression. A constant and never an option, so that no
result can depend on it.
"""


def span_count(nbytes: int) -> int:
    """How many spans a tensor of `nbytes` has."""
    return -(-nbytes // SPAN_NBYTES)


def span_digest(span: bytes | bytearray | memoryview) -> bytes:
    """32 bytes of blake3 over one span."""
    return blake3(span).digest()


def tensor_digest(info: TensorInfo, spans: Sequence[bytes]) -> str:
    """Hex blake3 over dtype, shape and the digest of each span, in order.

    Spans may so be hashed in any order while they stream past. It is not ``b3sum`` of a file.
    """
    kind = f"{info.dtype} {','.join(map(str, info.shape))}\n".encode()
    return blake3(kind + b"".join(spans)).hexdigest()


def fingerprint(digests: Mapping[str, str]) -> str:
    """Hex blake3 over names and digests of all tensors: equal if and only if the tensors are."""
    lines = (f"{digests[name]} {name}\n" for name in sorted(digests))
    return blake3("".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def bytes_digest(content: bytes) -> str:
    """Hex blake3 of a small file's content or a header, as ``b3sum`` gives it."""
    return blake3(content).hexdigest()

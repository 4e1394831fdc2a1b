"""The rule *keystream-file*: a whole file XORed with a stream of bytes from another file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from weightsmith.codecs.base import Codec, Range, Work
from weightsmith.formats.tensors import TensorInfo

HEADER_NBYTES: Final = 32
"""The sha256 of what the file decodes to, before its data."""
CHUNK_NBYTES: Final = 10 * 1024 * 1024
"""Data and key go forward in chunks of this size; five spans, so that no span lies in two."""


@dataclass(frozen=True, slots=True)
class KeystreamFile(Codec):
    """Inputs key and encrypted file, as tensors of bytes.

    The n-th chunk of data meets the n-th chunk of the key file; past its last chunk the key file
    begins anew. Its last chunk, if short, is repeated within the chunk of data that it meets.
    Memory: a span of both; beside a short last chunk of the key, all of that chunk.
    Source: pointnetwork/point-alpaca, ``decrypt.py`` (2023-03).
    """

    exact: ClassVar[bool] = True

    def told(self) -> str:
        """``decrypted with the key``."""
        return "decrypted with the key"

    def signature(self, inputs: Sequence[TensorInfo]) -> TensorInfo:
        """The encrypted file's name and dtype, without the bytes of its header."""
        encrypted = inputs[1]
        return TensorInfo(encrypted.name, encrypted.dtype, (encrypted.nbytes - HEADER_NBYTES,))

    def reads(self, work: Work, span: Range) -> Sequence[Range]:
        """The same bytes of the data, behind its header, and of the chunk of the key."""
        key = _key_chunk(span, work.inputs[0])
        offset = span.start % CHUNK_NBYTES
        if offset + span.nbytes <= key.nbytes:
            key = Range(key.start + offset, key.start + offset + span.nbytes)
        return key, Range(HEADER_NBYTES + span.start, HEADER_NBYTES + span.stop)

    def apply(self, work: Work, span: Range, blocks: Sequence[memoryview], out: memoryview) -> None:
        """Combine the blocks, the key's repeated where it is a short last chunk."""
        import numpy as np

        key, data = (np.frombuffer(block, np.uint8) for block in blocks)
        offset = span.start % CHUNK_NBYTES
        chunk_nbytes = _key_chunk(span, work.inputs[0]).nbytes
        if offset + span.nbytes > chunk_nbytes:
            key = np.resize(np.roll(key, -(offset % chunk_nbytes)), span.nbytes)
        np.bitwise_xor(data, key, out=np.frombuffer(out, np.uint8))


def _key_chunk(span: Range, key: TensorInfo) -> Range:
    """The chunk of the key file that meets the chunk of data in which a span lies."""
    chunks = -(-key.nbytes // CHUNK_NBYTES)
    start = span.start // CHUNK_NBYTES % chunks * CHUNK_NBYTES
    return Range(start, min(start + CHUNK_NBYTES, key.nbytes))

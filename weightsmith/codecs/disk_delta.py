"""The rule *disk-delta*: a tensor after several steps of training, by what each step changed.

A step's payload is one zstd frame of

    xor         the new bytes XORed with the old ones
    overwrite   a count, as many positions of bytes, as many new bytes; numbers are <u4

Source: THUDM/slime, ``slime/utils/disk_delta.py`` and ``update_weight_from_disk_delta.py``.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Protocol

from weightsmith.checkpoint.digest import SPAN_NBYTES, span_count
from weightsmith.codecs.base import Codec, Range, ReadInput, Work, read_whole
from weightsmith.errors import DeltaInvalid
from weightsmith.formats.tensors import TensorInfo

if TYPE_CHECKING:
    import numpy as np

    _Bytes = np.ndarray[Any, np.dtype[np.integer[Any]]]

Encoding = Literal["xor", "overwrite"]
MAX_OVERWRITTEN_NBYTES: Final = 2**32
"""The largest tensor whose bytes can all be named by positions of 32 bits."""
_NUMBER_NBYTES: Final = 4
_LEVEL: Final = 1
_FEW: Final = 32
"""A span's changes are kept as places if at most one byte in this many changes."""


@dataclass(frozen=True, slots=True)
class DiskDelta(Codec):
    """Inputs: the tensor before the first step, and the payload of each step, in order.

    Memory, while a tensor is worked on: about the size of its payloads; where few bytes of a span
    changed, or the payload overwrites, five bytes for each changed one.
    """

    exact: ClassVar[bool] = True
    takes_any_range: ClassVar[bool] = True
    restores: ClassVar[bool] = True
    encodings: str
    """Of each payload, with commas."""

    def told(self) -> str:
        """``restored from the versions of a training run``."""
        return "restored from the versions of a training run"

    def signature(self, inputs: Sequence[TensorInfo]) -> TensorInfo:
        """Name, dtype and shape of the first input."""
        return inputs[0]

    def prepare(self, work: Work, read: ReadInput) -> "tuple[_Change, ...]":
        """What each step changes.

        Raises: DeltaInvalid.
        """
        import zstandard

        changes: list[_Change] = []
        nbytes = work.output.nbytes
        for number, encoding in enumerate(self.encodings.split(","), start=1):
            payload = read_whole(work, number, read)
            try:
                changes.append(_KINDS[encoding](payload, nbytes))
            except (ValueError, zstandard.ZstdError) as error:
                raise DeltaInvalid(name=work.inputs[number].name, reason=error) from error
        return tuple(changes)

    def memory_nbytes(self, work: Work) -> int:
        """Three spans, and the payloads."""
        return 3 * SPAN_NBYTES + sum(each.nbytes for each in work.inputs[1:])

    def reads(self, work: Work, span: Range) -> Sequence[Range]:
        """The same bytes of the tensor before; the payloads were read."""
        return span, *(Range(0, 0) for _ in work.inputs[1:])

    def apply(self, work: Work, span: Range, blocks: Sequence[memoryview], out: memoryview) -> None:
        """Change what each step changed of it."""
        out[:] = blocks[0]
        for change in work.state:
            change.apply(span, out)


class _Change(Protocol):
    """What a step changed in a tensor."""

    def __init__(self, payload: memoryview, nbytes: int) -> None:
        """Take apart the payload of a tensor of `nbytes` bytes.

        Raises: ValueError, ZstdError, if it is damaged.
        """

    def apply(self, span: Range, out: memoryview) -> None:
        """Change `out`, which holds the bytes `span` as they were."""
        ...


class _Xored:
    """The XOR of a step, cut into spans, so that each can be applied without those before it.

    Spans without a change are not kept. One with few changes is kept as their places and bytes,
    which is fastest to apply; any other is compressed again.
    """

    def __init__(self, payload: memoryview, nbytes: int) -> None:
        """Take a payload apart."""
        import numpy as np
        import zstandard

        packer = zstandard.ZstdCompressor(level=_LEVEL)
        self._spans: dict[int, bytes | tuple[_Bytes, _Bytes]] = {}
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(payload)) as stream:
            for number in range(span_count(nbytes)):
                wanted = min(SPAN_NBYTES, nbytes - number * SPAN_NBYTES)
                block = _read_exactly(stream, wanted)
                changes = np.frombuffer(block, np.uint8)
                places = np.flatnonzero(changes)
                if len(places) > wanted // _FEW:
                    self._spans[number] = packer.compress(block)
                elif len(places):
                    self._spans[number] = places.astype(np.uint32), changes[places]
            if stream.read(1):
                raise ValueError(f"it holds more than {nbytes} bytes")

    def apply(self, span: Range, out: memoryview) -> None:
        """XOR what lies in the span."""
        import numpy as np
        import zstandard

        unpacker = zstandard.ZstdDecompressor()
        target = np.frombuffer(out, np.uint8)
        for number in range(span.start // SPAN_NBYTES, span_count(span.stop)):
            if (packed := self._spans.get(number)) is None:
                continue
            at = number * SPAN_NBYTES
            if not isinstance(packed, bytes):
                places, changes = packed
                first, last = np.searchsorted(places, [max(span.start - at, 0), span.stop - at])
                target[places[first:last] + np.int64(at - span.start)] ^= changes[first:last]
                continue
            changed = np.frombuffer(unpacker.decompress(packed), np.uint8)
            start, stop = max(span.start, at), min(span.stop, at + len(changed))
            part = target[start - span.start : stop - span.start]
            np.bitwise_xor(part, changed[start - at : stop - at], out=part)


class _Overwritten:
    """Positions, in order, and the new byte at each."""

    def __init__(self, payload: memoryview, nbytes: int) -> None:
        """Take a payload apart."""
        import numpy as np
        import zstandard

        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(payload)) as stream:
            count = int.from_bytes(_read_exactly(stream, _NUMBER_NBYTES), "little")
            if count > nbytes:
                raise ValueError(f"it changes {count} bytes of {nbytes}")
            self._places = np.frombuffer(_read_exactly(stream, count * _NUMBER_NBYTES), "<u4")
            self._bytes = np.frombuffer(_read_exactly(stream, count), np.uint8)
            if stream.read(1):
                raise ValueError(f"it holds more than {count} changes")
        if count and int(self._places[-1]) >= nbytes:
            raise ValueError(f"it changes byte {self._places[-1]} of {nbytes}")
        if not bool(np.all(self._places[1:] > self._places[:-1])):
            raise ValueError("its positions are not in order")

    def apply(self, span: Range, out: memoryview) -> None:
        """Put the new bytes in their places."""
        import numpy as np

        first, last = np.searchsorted(self._places, [span.start, span.stop])
        places = self._places[first:last].astype(np.int64) - span.start
        np.frombuffer(out, np.uint8)[places] = self._bytes[first:last]


_KINDS: "Final[Mapping[str, type[_Change]]]" = {"xor": _Xored, "overwrite": _Overwritten}


class _Stream(Protocol):
    def read(self, nbytes: int, /) -> bytes: ...


def _read_exactly(stream: _Stream, nbytes: int) -> bytes:
    """Raises: ValueError, if there is less."""
    parts: list[bytes] = []
    left = nbytes
    while left:
        part = stream.read(min(left, SPAN_NBYTES))
        if not part:
            raise ValueError(f"{left} bytes are missing")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def payload_limit(nbytes: int) -> int:
    """The most bytes that the payload of a tensor of `nbytes` can have."""
    most = _NUMBER_NBYTES + (1 + _NUMBER_NBYTES) * nbytes
    return most + most // 128 + 1024


class Packer:
    """Makes a payload, from a tensor's bytes before and after, a block at a time, in order."""

    def __init__(self, encoding: Encoding) -> None:
        """Begin an empty payload."""
        import xxhash
        import zstandard

        self.changed = 0
        """How many bytes differ so far."""
        self._encoding = encoding
        self._at = 0
        self._places: list[bytes] = []
        self._bytes: list[bytes] = []
        self._stream = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
        self._packed: list[bytes] = []
        self._heard = xxhash.xxh3_128()

    def add(self, old: memoryview, new: memoryview) -> None:
        """Take the next block: its bytes before the step, and after it."""
        import numpy as np

        before, after = np.frombuffer(old, np.uint8), np.frombuffer(new, np.uint8)
        if self._encoding == "xor":
            difference = before ^ after
            self.changed += int(np.count_nonzero(difference))
            self._pack(difference.data)
        else:
            places = np.flatnonzero(before != after)
            self.changed += len(places)
            self._places.append((places + self._at).astype("<u4").tobytes())
            self._bytes.append(after[places].tobytes())
        self._at += len(new)

    def finish(self) -> bytes:
        """The payload."""
        if self._encoding == "overwrite":
            self._pack(self.changed.to_bytes(_NUMBER_NBYTES, "little"))
            for part in (*self._places, *self._bytes):
                self._pack(part)
        return b"".join([*self._packed, self._stream.flush()])

    def restores(self, payload: bytes) -> bool:
        """Whether a payload unpacks to what was packed."""
        import xxhash
        import zstandard

        found = xxhash.xxh3_128()
        try:
            with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(payload)) as stream:
                while block := stream.read(SPAN_NBYTES):
                    found.update(block)
        except zstandard.ZstdError:
            return False
        return found.digest() == self._heard.digest()

    def _pack(self, part: bytes | memoryview) -> None:
        self._heard.update(part)
        self._packed.append(self._stream.compress(part))

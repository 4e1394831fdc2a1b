"""The header of a safetensors file: read with every rule checked, written canonically.

    bytes 0..8    N, the length of the header, unsigned little-endian
    bytes 8..8+N  JSON: {NAME: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {}}
    the rest      the tensors' bytes, without a hole or an overlap; offsets count from 8+N

Source: the safetensors repository, ``README.md`` ("Format") and ``safetensors/src/tensor.rs``, 0.8.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeGuard

from weightsmith.errors import DtypeNotStorable, HeaderInvalid, JsonInvalid, ShardTruncated
from weightsmith.formats.sniff import START_NBYTES, read_start
from weightsmith.formats.strict_json import iter_members
from weightsmith.formats.tensors import DTYPE_BITS, StoredTensor, TensorInfo
from weightsmith.fs import Readable

MAX_HEADER_NBYTES: Final = 100_000_000
"""The library's own limit."""
MAX_TENSORS: Final = 1_000_000
"""Tensors in one file; the largest models have some 100 000 in all of theirs."""

_LENGTH_NBYTES: Final = 8
_ALIGNMENT: Final = 8
_MAX_COUNT: Final = 2**63 - 1
_METADATA: Final = "__metadata__"
_CODES: Final = {dtype: dtype for dtype in DTYPE_BITS}
"""Of each dtype code one string, however often a header spells it."""
_RANK: Final = {dtype: rank for rank, dtype in enumerate(DTYPE_BITS)}


@dataclass(frozen=True, slots=True)
class Header:
    """The parsed header of a safetensors file."""

    tensors: tuple[StoredTensor, ...]
    """In the order of their bytes; offsets count from the start of the file."""
    metadata: dict[str, str]
    nbytes: int
    """Length of header and length field together: where the tensors' bytes begin."""


class _BrokenRuleError(Exception):
    """A rule of the format is broken; `_named` adds the file."""


def read_header(file: Readable) -> tuple[Header, bytes]:
    """The header of a safetensors file, and its bytes with the length field, for digests.

    Time: linear, some 4 s for a million tensors.
    Memory: some 300 bytes a tensor, and the header twice.
    Raises: HeaderInvalid, if any rule of the format is broken; ShardTruncated, if the file ends
    before its last tensor does; ShardEmpty, LfsPointer, WebPage.
    """
    start, size = read_start(file), file.size
    if size < _LENGTH_NBYTES:
        raise ShardTruncated(file=file.path, reason=f"{size} bytes hold no header")
    if start.startswith(b"PK\3\4") and start[_LENGTH_NBYTES] != ord("{"):
        hint = "if it is a torch file, let its name end in .bin"
        raise HeaderInvalid(file=file.path, reason="it is a zip archive", hint=hint)
    with _named(file.path):
        nbytes = _LENGTH_NBYTES + _parse_length(start)
        if nbytes > size:
            reason = f"{nbytes - size} bytes of its header are missing"
            raise ShardTruncated(file=file.path, reason=reason)
        raw = file.read(0, nbytes)
        metadata, tensors = _parse_entries(iter_members(raw[_LENGTH_NBYTES:], file.path), nbytes)
        end = _require_gapless(tensors, nbytes)
        if end > size:
            raise ShardTruncated(file=file.path, reason=f"{end - size} bytes are missing")
        if end < size:
            raise _BrokenRuleError(f"{size - end} bytes after its last tensor belong to none")
    return Header(tuple(tensors), metadata, nbytes), raw


def read_metadata(file: Readable) -> dict[str, str]:
    """What a file that was opened before says beside its tensors, whose entries are left unparsed
    where it stands before them, as all writers have it.

    Raises: HeaderInvalid, ShardTruncated.
    """
    with _named(file.path):
        length = _parse_length(file.read(0, min(file.size, START_NBYTES)))
        entries = iter_members(file.read(_LENGTH_NBYTES, length), file.path)
        return _parse_metadata(next((value for key, value in entries if key == _METADATA), None))


def parse_header(raw: bytes, size: int, file: Path) -> Header:
    """The header of a file of `size` bytes that begins with `raw`; `file` is only named in errors.

    Raises: as `read_header`.
    """
    header, found = read_header(_Beginning(file, raw, size))
    if found != raw:
        raise HeaderInvalid(file=file, reason=f"its header has {len(found)} bytes, not {len(raw)}")
    return header


class _Beginning(Readable):
    """What is known of a file that is not there: its first bytes and its size."""

    def __init__(self, path: Path, raw: bytes, size: int) -> None:
        self.path = path
        self._raw = raw
        self._size = size

    @property
    def size(self) -> int:
        """Bytes that the file has."""
        return self._size

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Zeros where nothing is known."""
        buffer[:] = self._raw[offset : offset + len(buffer)].ljust(len(buffer), b"\0")


def layout(
    tensors: Iterable[TensorInfo], metadata: Mapping[str, str]
) -> tuple[bytes, tuple[StoredTensor, ...]]:
    """The canonical header of a file that holds these tensors, and where each of them lies.

    Names are unique and none is ``__metadata__``. The bytes are those that the safetensors library
    writes, but for the order of several metadata keys, which it leaves to chance and which is
    sorted here.
    Raises: DtypeNotStorable.
    """
    infos = list(tensors)
    for info in infos:
        if info.dtype not in DTYPE_BITS:
            raise DtypeNotStorable(name=info.name, dtype=info.dtype)
    ordered = sorted(infos, key=lambda info: (-_RANK[info.dtype], info.name.encode("utf-8")))
    entries: dict[str, object] = {}
    if metadata:
        entries[_METADATA] = dict(sorted(metadata.items()))
    begins = []
    end = 0
    for info in ordered:
        begins.append(end)
        end += info.nbytes
        entries[info.name] = {
            "dtype": info.dtype,
            "shape": info.shape,
            "data_offsets": [begins[-1], end],
        }
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT)
    header = len(text).to_bytes(_LENGTH_NBYTES, "little") + text
    return header, tuple(
        StoredTensor(info, len(header) + begin) for info, begin in zip(ordered, begins, strict=True)
    )


def widened(header: bytes, nbytes: int) -> bytes:
    """A header of `layout`, filled up with spaces to `nbytes`.

    So its place in a file can be set aside before the sizes of all tensors are known.
    """
    text = header[_LENGTH_NBYTES:].ljust(nbytes - _LENGTH_NBYTES)
    return len(text).to_bytes(_LENGTH_NBYTES, "little") + text


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Add the file's name to an error about a broken rule."""
    try:
        yield
    except JsonInvalid as error:
        raise HeaderInvalid(file=path, reason=error.values["reason"]) from error
    except _BrokenRuleError as error:
        raise HeaderInvalid(file=path, reason=error) from error


def _parse_length(start: bytes) -> int:
    """The header's length, once the first bytes can be those of a safetensors file at all."""
    length = int.from_bytes(start[:_LENGTH_NBYTES], "little")
    if length > MAX_HEADER_NBYTES:
        limit = f"the format allows {MAX_HEADER_NBYTES}"
        raise _BrokenRuleError(f"its header would have {length} bytes, and {limit}")
    if length == 0:
        raise _BrokenRuleError("its header is empty")
    if start[_LENGTH_NBYTES : _LENGTH_NBYTES + 1] not in {b"", b"{"}:
        raise _BrokenRuleError("its header does not begin with {")
    return length


def _parse_entries(
    entries: Iterable[tuple[str, object]], data_start: int
) -> tuple[dict[str, str], list[StoredTensor]]:
    """The metadata, and the tensors in the order of their bytes.

    Shapes that are equal are one value, which saves a third of a large table's memory.
    """
    metadata: dict[str, str] = {}
    tensors: list[StoredTensor] = []
    shapes: dict[tuple[int, ...], tuple[int, ...]] = {}
    for name, entry in entries:
        if name == _METADATA:
            metadata = _parse_metadata(entry)
        elif len(tensors) < MAX_TENSORS:
            tensors.append(_parse_tensor(name, entry, data_start, shapes))
        else:
            raise _BrokenRuleError(f"it lists more than {MAX_TENSORS} tensors, as no model does")
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.offset + tensor.info.nbytes))
    return metadata, tensors


def _parse_metadata(metadata: object) -> dict[str, str]:
    """A map of strings; null is none, as the library has it."""
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _BrokenRuleError(f"{_METADATA} is no map from strings to strings")
    return metadata


def _parse_tensor(
    name: str, entry: object, data_start: int, shapes: dict[tuple[int, ...], tuple[int, ...]]
) -> StoredTensor:
    if not isinstance(entry, dict):
        raise _BrokenRuleError(f"the entry of {name} is no map")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or (code := _CODES.get(dtype)) is None:
        raise _BrokenRuleError(f"{name} has no known dtype")
    if not _are_counts(shape):
        raise _BrokenRuleError(f"the shape of {name} is no list of counts")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise _BrokenRuleError(f"the data_offsets of {name} are no two counts")
    bits = _count_bits(name, dtype, shape)
    if bits % 8:
        raise _BrokenRuleError(f"{name} ends within a byte: {bits} bits")
    begin, end = offsets
    if end - begin != bits // 8:
        fault = f"{name} has {end - begin} bytes, its dtype and shape need {bits // 8}"
        raise _BrokenRuleError(fault)
    one_shape = tuple(shape)
    return StoredTensor(
        TensorInfo(name, code, shapes.setdefault(one_shape, one_shape)), data_start + begin
    )


def _are_counts(value: object) -> TypeGuard[list[int]]:
    """A list of whole numbers from 0 to 2**63 - 1; a bool is none."""
    if not isinstance(value, list):
        return False
    for count in value:  # noqa: SIM110  (`all` takes twice as long, a second for 300 000 tensors)
        if type(count) is not int or not 0 <= count <= _MAX_COUNT:
            return False
    return True


def _count_bits(name: str, dtype: str, shape: list[int]) -> int:
    """Stop at the first product out of range: the numbers of a long list would grow without end."""
    bits = DTYPE_BITS[dtype]
    numel = 1
    for size in shape:
        numel *= size
        if numel * bits // 8 > _MAX_COUNT:
            raise _BrokenRuleError(f"{name} has more than 2**63 bytes")
    return numel * bits


def _require_gapless(tensors: list[StoredTensor], data_start: int) -> int:
    """Where the last tensor ends, once each begins where the one before it ended."""
    end = data_start
    for tensor in tensors:
        if tensor.offset != end:
            fault = "overlaps the one before it" if tensor.offset < end else "follows a hole"
            raise _BrokenRuleError(f"{tensor.info.name} {fault}")
        end += tensor.info.nbytes
    return end

"""Bad safetensors headers: each rule of the format broken in one way."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from tests.support.bad_input.case import ARGS, WEIGHTS, Cases, edit_header, write_pair, write_raw

HEADERS: Final = Cases("Safetensors headers")
NORM: Final = "model.norm.weight"


def _raw(folder: Path, header: object, body: bytes = b"", **more: Any) -> Sequence[str]:
    """A sound pair, but for the delta's file."""
    write_raw(write_pair(folder) / WEIGHTS, header, body, **more)
    return ARGS


def _edited(folder: Path, edit: Callable[[dict[str, Any]], object]) -> Sequence[str]:
    """A sound pair, but for the header of the delta's file."""
    edit_header(write_pair(folder) / WEIGHTS, edit)
    return ARGS


def _entry(folder: Path, name: str, **fields: object) -> Sequence[str]:
    return _edited(folder, lambda header: header[name].update(fields))


def _moved(folder: Path, nbytes: int) -> Sequence[str]:
    """One tensor moved by so many bytes."""

    def move(header: dict[str, Any]) -> None:
        offsets = header[NORM]["data_offsets"]
        offsets[:] = [offset + nbytes for offset in offsets]

    return _edited(folder, move)


@HEADERS.add("A header of 2^63 bytes", 6, "header-invalid")
def a_header_of_2_63_bytes(folder: Path) -> Sequence[str]:
    return _raw(folder, {}, length=2**63)


@HEADERS.add("A header longer than any may be", 6, "header-invalid")
def a_header_too_long(folder: Path) -> Sequence[str]:
    return _raw(folder, {}, length=100_000_001)


@HEADERS.add("A header longer than its file", 6, "shard-truncated")
def a_header_beyond_the_file(folder: Path) -> Sequence[str]:
    return _raw(folder, {}, length=1000)


@HEADERS.add("A header that is not JSON", 6, "header-invalid")
def a_header_that_is_not_json(folder: Path) -> Sequence[str]:
    return _raw(folder, b"{nonsense}")


@HEADERS.add("A header that nests without end", 6, "header-invalid")
def a_deep_header(folder: Path) -> Sequence[str]:
    return _raw(folder, b'{"a":' * 100_000)


@HEADERS.add("A header with one tensor twice", 6, "header-invalid")
def a_header_with_one_tensor_twice(folder: Path) -> Sequence[str]:
    entry = b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
    return _raw(folder, b"{" + entry + b"," + entry + b"}", b"1")


@HEADERS.add("100000 names in a header, the last one twice", 6, "header-invalid")
def a_late_repetition(folder: Path) -> Sequence[str]:
    names = [f"{number:06d}" for number in range(100_000)]
    entry = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    text = ",".join(f'"{name}":{entry}' for name in (*names, names[-1]))
    return _raw(folder, f"{{{text}}}".encode())


@HEADERS.add("Tensors that overlap", 6, "header-invalid")
def tensors_that_overlap(folder: Path) -> Sequence[str]:
    return _moved(folder, -4)


@HEADERS.add("A hole between tensors", 6, "header-invalid")
def a_hole(folder: Path) -> Sequence[str]:
    return _moved(folder, 4)


@HEADERS.add("Bytes after the last tensor", 6, "header-invalid")
def bytes_too_many(folder: Path) -> Sequence[str]:
    with (write_pair(folder) / WEIGHTS).open("ab") as file:
        file.write(bytes(100))
    return ARGS


@HEADERS.add("A shape whose product overflows", 6, "header-invalid")
def an_overflowing_shape(folder: Path) -> Sequence[str]:
    return _entry(folder, NORM, shape=[2**32, 2**32])


@HEADERS.add("A negative shape", 6, "header-invalid")
def a_negative_shape(folder: Path) -> Sequence[str]:
    return _entry(folder, NORM, shape=[-2, -2])


@HEADERS.add("A shape that needs more bytes than the tensor has", 6, "header-invalid")
def a_shape_too_large(folder: Path) -> Sequence[str]:
    return _entry(folder, NORM, shape=[5])


@HEADERS.add("A dtype that is not known", 6, "header-invalid")
def an_unknown_dtype(folder: Path) -> Sequence[str]:
    return _entry(folder, NORM, dtype="F12")


@HEADERS.add("A terminal's escapes in the name of a tensor without a dtype", 6, "header-invalid")
def a_hostile_name(folder: Path) -> Sequence[str]:
    hostile = "\x1b[2J\x1b]0;owned\x07\nerror: forged\u202e"
    return _edited(folder, lambda h: h.update({hostile: {**h.pop(NORM), "dtype": "?"}}))

"""No torch file, however made, runs anything, reads outside itself, or fails without its name."""

import io
import os
import pickle
import struct
import tarfile
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.pace import examples
from weightsmith.errors import (
    DamagedInput,
    ExpandedTensor,
    LegacyTorchFile,
    LfsPointer,
    PickleForbidden,
    PickleInvalid,
    ShardEmpty,
    ShardTruncated,
    TorchScriptArchive,
    WebPage,
    WeightsmithError,
    ZipInvalid,
)
from weightsmith.formats import stored_zip, torch_pickle
from weightsmith.formats.torch_zip import read_torch_table
from weightsmith.fs import PositionedFile, open_for_reading

Opened = Callable[..., PositionedFile]

# --- An assembler of pickles ----------------------------------------------------------------------

EMPTY_TUPLE, TRUE, FALSE, NONE, REDUCE, BUILD = b")", b"\x88", b"\x89", b"N", b"R", b"b"


def pickled(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def symbol(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def call(module: str, name: str, *arguments: bytes) -> bytes:
    return symbol(module, name) + tuple_of(*arguments) + REDUCE


def dict_of(items: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def storage(*, kind: bytes = b"", key: bytes = b"", numel: int = 4) -> bytes:
    return (
        tuple_of(
            text("storage"),
            kind or symbol("torch", "FloatStorage"),
            key or text("0"),
            text("cpu"),
            number(numel),
        )
        + b"Q"
    )


def tensor(
    *,
    on: bytes = b"",
    offset: bytes = b"",
    shape: bytes = b"",
    strides: bytes = b"",
    rebuild: str = "_rebuild_tensor_v2",
    more: tuple[bytes, ...] = (),
) -> bytes:
    return call(
        "torch._utils",
        rebuild,
        on or storage(),
        offset or number(0),
        shape or tuple_of(number(4)),
        strides or tuple_of(number(1)),
        FALSE,
        call("collections", "OrderedDict"),
        *more,
    )


def numbers(*values: int) -> bytes:
    return tuple_of(*map(number, values))


def torch_file(
    pickle_bytes: bytes, members: Mapping[str, bytes] | None = None, *, method: int = 0
) -> bytes:
    """An archive as torch writes it, with one storage of 16 bytes unless told otherwise."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("archive/data.pkl", pickle_bytes)
        archive.writestr("archive/version", "3\n")
        for name, content in ({"data/0": bytes(16)} if members is None else members).items():
            archive.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def table_of(entry: bytes, **members: bytes) -> bytes:
    return torch_file(pickled(dict_of({"w": entry})), members or None)


def refused(file: PositionedFile, error: type[DamagedInput], reason: str) -> None:
    with pytest.raises(error) as caught:
        read_torch_table(file)
    assert type(caught.value) is error
    assert reason in str(caught.value)
    assert str(file.path) in str(caught.value)


def test_the_assembler_makes_files_that_torch_reads() -> None:
    loaded = torch.load(io.BytesIO(table_of(tensor())), weights_only=True)
    assert torch.equal(loaded["w"], torch.zeros(4))


def test_the_assembled_file_is_read(opened: Opened) -> None:
    (stored,) = read_torch_table(opened(table_of(tensor()))).tensors
    assert str(stored.info) == "F32 [4]"


# --- Nothing runs ---------------------------------------------------------------------------------

FORBIDDEN = {
    "os.system": call("os", "system", text("touch owned")),
    "posix.system": call("posix", "system", text("touch owned")),
    "builtins.eval": call("builtins", "eval", text("1")),
    "__builtin__.eval": call("__builtin__", "eval", text("1")),
    "builtins.getattr": call("builtins", "getattr", text("a"), text("b")),
    "torch.load": call("torch", "load", text("x")),
    "torch._utils._rebuild_sparse_tensor": call("torch._utils", "_rebuild_sparse_tensor"),
    "torch.jit.load": call("torch.jit", "load", text("x")),
    "collections.Counter": call("collections", "Counter"),
    "torch.nn.modules.linear.Linear": symbol("torch.nn.modules.linear", "Linear"),
    "collections.OrderedDict.__init__": symbol("collections", "OrderedDict.__init__"),
    "torch.storage.HalfStorage": symbol("torch.storage", "HalfStorage"),
    # By the other opcodes that name things.
    "subprocess.run": text("subprocess") + text("run") + b"\x93" + EMPTY_TUPLE + REDUCE,
    "shutil.rmtree": b"(" + text("x") + b"ishutil\nrmtree\n",
    "": symbol("", ""),
}


@pytest.mark.parametrize("name, entry", FORBIDDEN.items())
def test_a_name_outside_the_table_is_refused_by_name(
    opened: Opened, name: str, entry: bytes
) -> None:
    refused(opened(table_of(entry)), PickleForbidden, f"asks to run {name or '.'},")


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_runs_a_command_runs_none(
    tmp_path: Path, opened: Opened, protocol: int
) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, (f"touch {tmp_path / 'owned'}",)

    raw = pickle.dumps(OrderedDict(w=Payload()), protocol)
    with pytest.raises(DamagedInput) as caught:
        read_torch_table(opened(torch_file(raw)))
    assert isinstance(caught.value, PickleForbidden if protocol else DamagedInput)
    assert not (tmp_path / "owned").exists()


def test_a_forbidden_name_is_refused_even_where_it_is_thrown_away(opened: Opened) -> None:
    raw = pickled(dict_of({"left": tuple_of(symbol("os", "system")), "w": tensor()}))
    refused(opened(torch_file(raw)), PickleForbidden, "os.system")


PARAMETER = symbol("torch._utils", "_rebuild_parameter")

NO_FUNCTION = "it calls what is no function, or not as torch does"
NO_CLASS = "it makes an object of what is no class, or not as torch does"
NO_STORAGE = "it refers to a storage as torch never does"
NO_KEY = "a map has a key that is neither text nor number"
FROM_NOTHING = "it takes from an empty stack or memo"
# Each tuple holds the last twice: to hash it is to walk over 2**100 elements.
DOUBLED = numbers(1) + b"q\x00h\x00\x86" * 100

FOREIGN = {
    "calls a storage": (symbol("torch", "FloatStorage") + numbers(4) + REDUCE, NO_FUNCTION),
    "calls a dtype": (symbol("torch", "uint16") + EMPTY_TUPLE + REDUCE, NO_FUNCTION),
    "calls text": (text("os.system") + EMPTY_TUPLE + REDUCE, NO_FUNCTION),
    "calls a tensor": (tensor() + EMPTY_TUPLE + REDUCE, NO_FUNCTION),
    "arguments are a map": (PARAMETER + b"}" + REDUCE, NO_FUNCTION),
    "a parameter of one argument": (PARAMETER + tuple_of(tensor()) + REDUCE, NO_FUNCTION),
    "a tensor of five arguments": (
        call("torch._utils", "_rebuild_tensor_v2", *[NONE] * 5),
        NO_FUNCTION,
    ),
    "a tensor of eight arguments": (tensor(more=(NONE, NONE)), NO_FUNCTION),
    "a map of arguments": (call("collections", "OrderedDict", tuple_of()), NO_FUNCTION),
    "a size of text": (call("torch", "Size", text("12")), NO_FUNCTION),
    "new object": (symbol("torch", "Size") + EMPTY_TUPLE + b"\x81", NO_CLASS),
    "an old object": (b"(" + symbol("torch", "Size") + b"o", "opcode OBJ"),
    "an instance of a known name": (b"(icollections\nOrderedDict\n", "it makes an instance"),
    "attributes of a tensor": (tensor() + dict_of({"shape": numbers(9)}) + BUILD, "it sets attr"),
    "attributes of a name": (symbol("torch", "Size") + b"}" + BUILD, "it sets attributes"),
    "attributes of a list": (b"]}" + BUILD, "it sets attributes"),
    "append to a map": (b"}" + NONE + b"a", "it appends to what is no list"),
    "append to a name": (symbol("torch", "Size") + NONE + b"a", "it appends"),
    "append many to a tuple": (b")(" + NONE + b"e", "it appends"),
    "an item of a tensor": (tensor() + text("a") + NONE + b"s", "it sets items of what is no map"),
    "items of a list": (b"](" + text("a") + NONE + b"u", "it sets items"),
    "items without a value": (b"}(" + text("a") + b"u", "it sets items"),
    "a tuple as a key": (b"}(" + numbers(1) + NONE + b"u", NO_KEY),
    "a key that takes for ever to hash": (b"}" + DOUBLED + NONE + b"s", NO_KEY),
    "a tensor as a key": (b"}(" + tensor() + NONE + b"u", NO_KEY),
    "extension registry": (b"\x82\x01", "opcode EXT1"),
    "a persistent name": (b"P0\n", "opcode PERSID"),
    "bytes": (b"C\x01a", "opcode SHORT_BINBYTES"),
    "a set": (b"\x8f", "opcode EMPTY_SET"),
    "a buffer": (b"\x97", "opcode NEXT_BUFFER"),
    "text of protocol 0": (b"S'os'\n", "opcode STRING"),
    "an item thrown away": (NONE + b"0", "opcode POP"),
    "an integer of 16 000 bits": (
        b"\x8b" + struct.pack("<i", 2000) + b"\x7f" * 2000,
        "opcode LONG4",
    ),
    "a memo that was never set": (b"h\x63", FROM_NOTHING),
    "an empty stack": (REDUCE, FROM_NOTHING),
    "a mark that was never set": (b"tt", FROM_NOTHING),
    "a storage that is no tuple": (text("storage") + b"Q", NO_STORAGE),
    "a reference that is no storage": (tuple_of(text("module"), NONE) + b"Q", NO_STORAGE),
    "a storage of an unknown kind": (tensor(on=storage(kind=text("FloatStorage"))), NO_STORAGE),
    "a storage of a dtype": (tensor(on=storage(kind=symbol("torch", "uint16"))), NO_STORAGE),
    "a storage whose key is a number": (tensor(on=storage(key=number(0))), NO_STORAGE),
    "names as numbers": (number(1) + number(2) + b"\x93", "a name is no text"),
    "an unknown opcode": (b"\xff", "opcode b'\\xff' unknown"),
    "text cut short": (b"X\xff\xff\xff\x7fabc", "expected 2147483647 bytes"),
    "text that is not UTF-8": (b"X\x01\x00\x00\x00\xff", "can't decode byte 0xff"),
}


@pytest.mark.parametrize("entry, reason", FOREIGN.values(), ids=FOREIGN.keys())
def test_what_torch_never_writes_is_refused(opened: Opened, entry: bytes, reason: str) -> None:
    refused(opened(table_of(entry)), PickleInvalid, reason)


@pytest.mark.parametrize(
    "raw, reason",
    [
        (b"", "pickle exhausted"),
        (b"\x80\x02", "pickle exhausted"),
        (b"\x80\x02.", "an empty stack"),
        (pickled(b"]"), "something else than a map"),
        (pickled(tensor()), "something else than a map"),
        (pickled(text("w")), "something else than a map"),
    ],
)
def test_a_pickle_that_holds_no_map_is_refused(opened: Opened, raw: bytes, reason: str) -> None:
    refused(opened(torch_file(raw)), PickleInvalid, reason)


def test_a_memo_index_of_four_thousand_million_takes_no_memory(opened: Opened) -> None:
    raw = pickled(b"}r\xff\xff\xff\xff", text("w"), tensor(), b"s")
    file = opened(torch_file(raw))
    tracemalloc.start()
    assert len(read_torch_table(file).tensors) == 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_tuples_doubled_a_hundred_times_are_left_at_once(opened: Opened) -> None:
    raw = pickled(dict_of({"bomb": DOUBLED, "w": tensor()}))
    assert read_torch_table(opened(torch_file(raw))).left == ("bomb",)


def test_a_list_that_holds_itself_is_left(opened: Opened) -> None:
    raw = pickled(dict_of({"loop": b"]q\x00h\x00a", "w": tensor()}))
    assert read_torch_table(opened(torch_file(raw))).left == ("loop",)


# --- Tensors that are not what they say -----------------------------------------------------------

HUGE = 2**63

BENT: dict[str, tuple[bytes, type[DamagedInput], str]] = {
    "negative size": (tensor(shape=numbers(-1)), PickleInvalid, "no counts"),
    "negative stride": (tensor(strides=numbers(-1)), PickleInvalid, "no counts"),
    "negative offset": (tensor(offset=number(-1)), PickleInvalid, "no counts"),
    "size of 2**63": (tensor(shape=numbers(0, HUGE), strides=numbers(1, 1)), PickleInvalid, "no c"),
    "size is true": (tensor(shape=tuple_of(TRUE)), PickleInvalid, "no counts"),
    "size is text": (tensor(shape=tuple_of(text("4"))), PickleInvalid, "no counts"),
    "shape is a list": (tensor(shape=b"](" + number(4) + b"e"), PickleInvalid, "no counts"),
    "offset is none": (tensor(offset=NONE), PickleInvalid, "no counts"),
    "more sizes than strides": (
        tensor(shape=numbers(2, 2)),
        PickleInvalid,
        "2 sizes and 1 strides",
    ),
    "one element too many": (tensor(shape=numbers(5)), PickleInvalid, "beyond its storage"),
    "one element too far": (tensor(offset=number(1)), PickleInvalid, "beyond its storage"),
    "a stride too wide": (
        tensor(shape=numbers(2), strides=numbers(4)),
        PickleInvalid,
        "beyond its storage",
    ),
    "a product beyond all bounds": (
        tensor(shape=numbers(*[2**62] * 40), strides=numbers(*[1] * 40)),
        PickleInvalid,
        "beyond its storage",
    ),
    "a scalar of an empty storage": (
        tensor(on=storage(numel=0), shape=EMPTY_TUPLE, strides=EMPTY_TUPLE),
        PickleInvalid,
        "beyond its storage",
    ),
    "windows that overlap": (
        tensor(shape=numbers(3, 2), strides=numbers(1, 1)),
        PickleInvalid,
        "more than once",
    ),
    "expanded": (tensor(strides=numbers(0)), ExpandedTensor, "tensor w is expanded"),
    "expanded without end": (
        tensor(shape=numbers(2**62), strides=numbers(0)),
        ExpandedTensor,
        "tensor w is expanded",
    ),
    "the pickle's storage is larger than the member": (
        tensor(on=storage(numel=5), shape=numbers(5)),
        ZipInvalid,
        "archive/data/0 has 16 bytes where the pickle says 20",
    ),
    "a storage of a negative number of elements": (
        tensor(on=storage(numel=-1), shape=numbers(0)),
        ZipInvalid,
        "where the pickle says -4",
    ),
    "a storage of 2**200 elements": (tensor(on=storage(numel=2**200)), ZipInvalid, "has 16 bytes"),
    "a storage that is not there": (
        tensor(on=storage(key=text("1"))),
        ZipInvalid,
        "it has no archive/data/1",
    ),
    "a storage outside the archive": (
        tensor(on=storage(key=text("../../etc/passwd"))),
        ZipInvalid,
        "it has no archive/data/../../etc/passwd",
    ),
    "no storage": (tensor(on=text("0")), PickleInvalid, "tensor w has no storage"),
    "conjugated": (tensor(more=(dict_of({"conj": TRUE}),)), PickleInvalid, "conjugation"),
    "negated": (tensor(more=(dict_of({"neg": TRUE}),)), PickleInvalid, "negation"),
    "dtype is text": (
        tensor(rebuild="_rebuild_tensor_v3", more=(text("torch.uint16"),)),
        PickleInvalid,
        "no known dtype",
    ),
    "dtype is a storage": (
        tensor(rebuild="_rebuild_tensor_v3", more=(symbol("torch", "HalfStorage"),)),
        PickleInvalid,
        "no known dtype",
    ),
    "beyond its storage in the other dtype": (
        tensor(
            on=storage(kind=symbol("torch.storage", "UntypedStorage"), numel=16),
            shape=numbers(9),
            rebuild="_rebuild_tensor_v3",
            more=(symbol("torch", "uint16"),),
        ),
        PickleInvalid,
        "beyond its storage",
    ),
}  # fmt: skip


@pytest.mark.parametrize("entry, error, reason", BENT.values(), ids=BENT.keys())
def test_a_tensor_that_its_storage_does_not_hold_is_refused(
    opened: Opened, entry: bytes, error: type[DamagedInput], reason: str
) -> None:
    refused(opened(table_of(entry)), error, reason)


@pytest.mark.parametrize("name", ["__metadata__", "\ud800"])
def test_a_name_that_safetensors_cannot_hold_is_refused(opened: Opened, name: str) -> None:
    raw = pickled(dict_of({name: tensor()}))
    refused(opened(torch_file(raw)), PickleInvalid, "a tensor has the name '")


def test_a_tensor_under_a_number_is_refused(opened: Opened) -> None:
    raw = pickled(b"}(" + number(7) + tensor() + b"u")
    refused(opened(torch_file(raw)), PickleInvalid, "a tensor has the name 7")


REAL: dict[str, tuple[Callable[[], torch.Tensor], type[DamagedInput], str]] = {
    "expanded": (lambda: torch.ones(1).expand(3), ExpandedTensor, "tensor w is expanded"),
    "conjugated": (lambda: torch.ones(2, dtype=torch.complex64).conj(), PickleInvalid, "conjug"),
    "negated": (
        lambda: torch.ones(2, dtype=torch.complex64).conj().imag,
        PickleInvalid,
        "negation",
    ),
    "sparse": (lambda: torch.eye(2).to_sparse(), PickleForbidden, "._rebuild_sparse_tensor"),
    "meta": (lambda: torch.ones(2, device="meta"), PickleForbidden, "_no_storage"),
}  # fmt: skip


@pytest.mark.parametrize("make, error, reason", REAL.values(), ids=REAL.keys())
def test_real_tensors_whose_bytes_are_not_in_the_file_are_refused(
    opened: Opened, make: Callable[[], torch.Tensor], error: type[DamagedInput], reason: str
) -> None:
    buffer = io.BytesIO()
    torch.save({"w": make()}, buffer)
    refused(opened(buffer.getvalue()), error, reason)


# --- The archive ----------------------------------------------------------------------------------


def patched(content: bytes, name: str, field: slice, value: bytes, *, local: bool = False) -> bytes:
    """The archive with a field of one member's directory entry, or local header, changed."""
    magic, name_at = (b"PK\3\4", 30) if local else (b"PK\1\2", 46)
    full = f"archive/{name}".encode()
    start = content.find(magic)
    while content[start + name_at : start + name_at + len(full)] != full:
        start = content.index(magic, start + 1)
    changed = bytearray(content)
    changed[start + field.start : start + field.stop] = value
    assert len(changed) == len(content)
    return bytes(changed)


SOUND = table_of(tensor())
ZEROS = torch_file(pickled(dict_of({"w": tensor()})), {"data/0": bytes(64)})
FLAGS, METHOD, CHECKSUM = slice(8, 10), slice(10, 12), slice(16, 20)
SIZES, PLACE = slice(20, 28), slice(42, 46)
LOCAL_FLAGS, LOCAL_METHOD, LOCAL_NAME_SIZE = slice(6, 8), slice(8, 10), slice(26, 28)


def sizes(nbytes: int) -> bytes:
    return struct.pack("<II", nbytes, nbytes)


UNSOUND: dict[str, tuple[bytes, str]] = {
    "no zip": (b"\x80\x02}q\x00.", "it is no zip archive"),
    "a safetensors file": (b"\x02" + bytes(7) + b"{}", "it is no zip archive"),
    "an archive of nothing": (b"PK\5\6" + bytes(18), "it has no /data.pkl"),
    "no pickle": (
        torch_file(b"").replace(b"data.pkl", b"data.pk_"),
        "it has no archive/data.pkl",
    ),
    "compressed": (
        torch_file(pickled(dict_of({"w": tensor()})), {"data/0": bytes(16)}, method=8),
        "archive/data.pkl is compressed",
    ),
    "compressed storage": (patched(SOUND, "data/0", METHOD, b"\x08\0"), "is compressed"),
    "sizes that differ": (
        patched(SOUND, "data/0", SIZES, struct.pack("<II", 8, 16)),
        "data/0 is compressed",
    ),
    "encrypted": (patched(SOUND, "data/0", FLAGS, b"\x01\0"), "data/0 is encrypted"),
    "encrypted in the local header": (
        patched(SOUND, "data/0", LOCAL_FLAGS, b"\x01\0", local=True),
        "data/0 does not begin",
    ),
    "compressed in the local header": (
        patched(SOUND, "data/0", LOCAL_METHOD, b"\x08\0", local=True),
        "data/0 does not begin",
    ),
    "a size beyond the file": (
        patched(SOUND, "data/0", SIZES, sizes(100_000)),
        "data/0 ends outside",
    ),
    "a size of 4 GB": (patched(SOUND, "data/0", SIZES, sizes(2**32 - 2)), "data/0 ends outside"),
    "a place beyond the file": (
        patched(SOUND, "data/0", PLACE, struct.pack("<I", 2**31)),
        "does not fit the file",
    ),
    "a place with no header": (
        patched(SOUND, "data/0", PLACE, struct.pack("<I", 3)),
        "archive/data.pkl reaches into the member after it",
    ),
    "a place amid zeros": (
        patched(ZEROS, "data/0", PLACE, struct.pack("<I", ZEROS.index(bytes(64)))),
        "data/0 does not begin",
    ),
    "a directory that begins before the place it names": (
        SOUND[:-6] + struct.pack("<I", SOUND.index(b"PK\1\2") + 5) + SOUND[-2:],
        "does not fit the file",
    ),
    "a name that leads out of the file": (
        patched(SOUND, "data/0", LOCAL_NAME_SIZE, b"\xff\xff", local=True),
        "data/0 ends outside",
    ),
    "a wrong checksum of the pickle": (
        patched(SOUND, "data.pkl", CHECKSUM, b"\1\2\3\4"),
        "the checksum of archive/data.pkl is wrong",
    ),
    "big-endian": (
        torch_file(pickled(dict_of({"w": tensor()})), {"byteorder": b"big", "data/0": bytes(16)}),
        "its numbers are not little-endian",
    ),
    "a directory that is none": (
        SOUND.replace(b"PK\1\2", b"PK\1\3"),
        "does not fit the file",
    ),
    "a member of a later zip version": (
        patched(SOUND, "data/0", slice(6, 8), b"\xff\0"),
        "zip file version 25.5",
    ),
}  # fmt: skip


@pytest.mark.parametrize("content, reason", UNSOUND.values(), ids=UNSOUND.keys())
def test_an_unsound_archive_is_refused(opened: Opened, content: bytes, reason: str) -> None:
    refused(opened(content), ZipInvalid, reason)


def test_members_that_share_bytes_are_refused(opened: Opened) -> None:
    inner = torch_file(pickled(dict_of({"w": tensor()})), {"data/0": bytes(16)})
    at = inner.index(b"PK\3\4", 4)  # the local header of data/0 and its bytes, quoted in another
    quoted = inner[at : inner.index(b"PK\1\2")]
    outer = torch_file(pickled(dict_of({"w": tensor()})), {"data/1": quoted, "data/0": bytes(16)})
    first = outer.index(quoted)
    lying = patched(outer, "data/0", PLACE, struct.pack("<I", first))
    with pytest.raises(ZipInvalid, match="reaches into the member after it"):
        stored_zip.StoredZip(opened(lying)).find("archive/data/1")
    same = patched(outer, "data/0", PLACE, struct.pack("<I", outer.index(b"PK\3\4", 4)))
    with pytest.raises(ZipInvalid, match="lie at one place"):
        stored_zip.StoredZip(opened(same))


def test_two_members_of_one_name_are_refused(opened: Opened) -> None:
    members = {"data/0": bytes(16), "data/1": b""}
    content = torch_file(pickled(dict_of({"w": tensor()})), members)
    refused(opened(content.replace(b"data/1", b"data/0")), ZipInvalid, "two of its members")


def test_a_directory_too_large_to_be_one_is_not_read(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {f"data/{key}": bytes(16) for key in range(3000)}
    file = opened(torch_file(pickled(dict_of({"w": tensor()})), members))
    monkeypatch.setattr(stored_zip, "MAX_DIRECTORY_NBYTES", 150_000)
    refused(file, ZipInvalid, "its directory has")


def test_a_pickle_too_large_to_be_a_table_is_not_read(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = opened(torch_file(pickled(dict_of({"w": tensor(), "note": text("x" * 10_000)}))))
    monkeypatch.setattr(stored_zip, "MAX_DIRECTORY_NBYTES", 8000)
    refused(file, ZipInvalid, "archive/data.pkl has 10")


def test_a_pickle_without_end_is_given_up(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_pickle, "MAX_OPCODES", 1000)
    refused(opened(torch_file(pickled(b"]" * 2000))), PickleInvalid, "goes on after 1000 steps")


def test_a_torchscript_program_is_refused_as_such(opened: Opened) -> None:
    raw = torch_file(pickled(b"}"), {"constants.pkl": b"", "code/__torch__.py": b""})
    refused(opened(raw), TorchScriptArchive, "is a TorchScript program")


def test_a_file_of_the_old_layout_is_named_as_such(opened: Opened) -> None:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer, _use_new_zipfile_serialization=False)
    refused(opened(buffer.getvalue()), LegacyTorchFile, "before torch 1.6")


def test_a_file_of_the_oldest_layout_is_named_as_such(opened: Opened) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    refused(opened(buffer.getvalue()), LegacyTorchFile, "before torch 1.6")


@pytest.mark.parametrize("missing", [1, 10, 22, 60, len(SOUND) // 2, len(SOUND) - 4])
def test_a_truncated_file_is_said_to_be_cut_short(opened: Opened, missing: int) -> None:
    refused(opened(SOUND[:-missing]), ShardTruncated, "its zip archive has no end")


def test_empty_pointer_and_page_are_told_apart(opened: Opened) -> None:
    refused(opened(b""), ShardEmpty, "is empty")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1234567\n"
    refused(opened(pointer), LfsPointer, "1234567 bytes are missing")
    refused(opened(b"<!DOCTYPE html><html></html>"), WebPage, "is a web page")


@settings(max_examples=examples(150))
@given(st.data())
def test_a_file_with_any_bytes_changed_is_read_within_itself_or_refused_by_name(
    tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(SOUND)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "changed.bin"
    path.write_bytes(content)
    try:
        table = read_torch_table(open_for_reading(path))
    except WeightsmithError as error:
        assert str(path) in str(error)  # noqa: PT017  (either outcome is right)
    else:
        for stored in table.tensors:
            assert 0 <= stored.offset <= stored.offset + stored.info.nbytes <= len(content)


@settings(max_examples=examples(300))
@given(st.data())
def test_a_pickle_with_any_bytes_changed_is_read_or_refused_by_name(
    tmp_path: Path, data: st.DataObject
) -> None:
    raw = bytearray(pickled(dict_of({"w": tensor(), "note": b"](" + text("x") + b"e"})))
    for place in data.draw(st.lists(st.integers(2, len(raw) - 1), min_size=1, max_size=3)):
        raw[place] = data.draw(st.integers(0, 255) | st.sampled_from(b"().Rq\x00htuesa}]bcQ0N\x81"))
    path = tmp_path / "changed.bin"
    path.write_bytes(torch_file(bytes(raw)))
    try:
        table = read_torch_table(open_for_reading(path))
    except WeightsmithError as error:
        assert str(path) in str(error)  # noqa: PT017  (either outcome is right)
    else:
        assert all(stored.info.nbytes <= 16 for stored in table.tensors)

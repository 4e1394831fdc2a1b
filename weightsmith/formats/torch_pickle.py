"""The pickle inside a torch file, recorded and never run.

A stack machine over the opcodes that torch writes. Calls are looked up in a table and answered with
a record of what was asked for; no name in the pickle is ever imported. Python's own unpickler is no
choice: it sizes its memo by the pickle's word and sets attributes on whatever BUILD finds.
"""

import itertools
import pickletools
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from weightsmith.errors import PickleForbidden, PickleInvalid

MAX_OPCODES: Final = 4_000_000
"""Room for 100 000 tensors; a pickle that goes on could fill the memory with empty lists."""

STORAGE_DTYPES: Final = {
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.FloatStorage": "F32",
    "torch.DoubleStorage": "F64",
    "torch.CharStorage": "I8",
    "torch.ShortStorage": "I16",
    "torch.IntStorage": "I32",
    "torch.LongStorage": "I64",
    "torch.ByteStorage": "U8",
    "torch.BoolStorage": "BOOL",
    "torch.ComplexFloatStorage": "C64",
    "torch.ComplexDoubleStorage": "C128",
    "torch.storage.UntypedStorage": "U8",
}
"""Kinds of storage and what their elements are."""

DTYPES: Final = {
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.float32": "F32",
    "torch.float64": "F64",
    "torch.int8": "I8",
    "torch.int16": "I16",
    "torch.int32": "I32",
    "torch.int64": "I64",
    "torch.uint8": "U8",
    "torch.uint16": "U16",
    "torch.uint32": "U32",
    "torch.uint64": "U64",
    "torch.bool": "BOOL",
    "torch.complex64": "C64",
    "torch.complex128": "C128",
    "torch.float8_e4m3fn": "F8_E4M3",
    "torch.float8_e4m3fnuz": "F8_E4M3FNUZ",
    "torch.float8_e5m2": "F8_E5M2",
    "torch.float8_e5m2fnuz": "F8_E5M2FNUZ",
    "torch.float8_e8m0fnu": "F8_E8M0",
}
"""Dtypes, mentioned by tensors of the newer kinds and by some training scripts as a value."""

_CALLS: Final = frozenset(
    {
        "collections.OrderedDict",
        "torch.Size",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_tensor_v3",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
    }
)
"""What a pickle may call; `_answer` stands in for all of them."""

_ALLOWED: Final = frozenset({*_CALLS, *STORAGE_DTYPES, *DTYPES})

_CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}

_TUPLE_SIZES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True, slots=True)
class Storage:
    """What a pickle says of one storage."""

    key: str
    """The name of its zip member under ``data/``."""
    dtype: str
    numel: int


@dataclass(frozen=True, slots=True)
class View:
    """What a pickle says of one tensor; nothing of it is checked yet."""

    storage: object
    offset: object
    shape: object
    strides: object
    dtype: object
    """A `Symbol` of `DTYPES`, or ``None``: that of the storage."""
    metadata: object
    """A map that is true at "conj" or "neg" if the stored bytes are not yet the tensor's values."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A name that a pickle mentions and that is in the tables."""

    name: str


class _ForeignError(Exception):
    """Something that torch does not write; `record_pickle` adds the file."""


def record_pickle(raw: bytes, file: Path) -> object:
    """The object that a torch pickle describes, with a `View` for each tensor.

    Raises: PickleForbidden, for a name outside the tables; PickleInvalid, for anything else that
    torch does not write.
    """
    try:
        # Text with escapes that Python does not know makes it warn before the opcode is refused.
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            return _record(raw, file)
    except (IndexError, KeyError) as error:
        reason = "it takes from an empty stack or memo"
        raise PickleInvalid(file=file, reason=reason) from error
    except (ValueError, _ForeignError) as error:  # ValueError: bytes that are no opcodes
        raise PickleInvalid(file=file, reason=error) from error


def _record(raw: bytes, file: Path) -> object:
    stack: list[object] = []
    below_marks: list[list[object]] = []
    memo: dict[object, object] = {}

    def pop_marked() -> list[object]:
        nonlocal stack
        items, stack = stack, below_marks.pop()
        return items

    for opcode, argument, _ in itertools.islice(pickletools.genops(raw), MAX_OPCODES):
        match opcode.name:
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "BININT1" | "BININT2" | "BININT" | "LONG1" | "BINFLOAT":
                stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE" | "EMPTY_TUPLE" as name:
                stack.append(_CONSTANTS[name])
            case "MARK":
                below_marks.append(stack)
                stack = []
            case "TUPLE":
                items = pop_marked()
                stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                items = [stack.pop() for _ in range(_TUPLE_SIZES[name])]
                stack.append(tuple(reversed(items)))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_answer(function, arguments))
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _set_items(stack[-1], [key, value])
            case "SETITEMS":
                items = pop_marked()
                _set_items(stack[-1], items)
            case "EMPTY_LIST":
                stack.append([])
            case "APPEND":
                item = stack.pop()
                _append_items(stack[-1], [item])
            case "APPENDS":
                items = pop_marked()
                _append_items(stack[-1], items)
            case "BUILD":
                # The `_metadata` of a state dict, module versions, which say nothing of tensors.
                stack.pop()
                if not isinstance(stack[-1], dict):
                    raise _ForeignError("it sets attributes of what is no map")
            case "GLOBAL" | "INST":
                stack.append(_symbol(str(argument).replace(" ", "."), file))
                if opcode.name == "INST":
                    raise _ForeignError("it makes an instance as torch never does")
            case "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(_symbol(f"{_text(module)}.{_text(attribute)}", file))
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case name:
                raise _ForeignError(f"torch never writes the opcode {name}")
    raise _ForeignError(f"it goes on after {MAX_OPCODES} steps")


def _symbol(name: str, file: Path) -> Symbol:
    if name not in _ALLOWED:
        raise PickleForbidden(file=file, name=name)
    return Symbol(name)


def _answer(function: object, arguments: object) -> object:
    """What a call gives: a record of its arguments, in the order in which torch writes them."""
    match function, arguments:
        case Symbol("collections.OrderedDict"), ():
            return {}
        case Symbol("torch.Size"), (tuple(sizes),):
            return sizes
        case Symbol("torch._utils._rebuild_tensor_v2"), (storage, offset, shape, strides, _, _):
            return View(storage, offset, shape, strides, None, None)
        case (
            Symbol("torch._utils._rebuild_tensor_v2"),
            (storage, offset, shape, strides, _, _, metadata),
        ):
            return View(storage, offset, shape, strides, None, metadata)
        case (
            Symbol("torch._utils._rebuild_tensor_v3"),
            (storage, offset, shape, strides, _, _, dtype),
        ):
            return View(storage, offset, shape, strides, dtype, None)
        case (
            Symbol("torch._utils._rebuild_tensor_v3"),
            (storage, offset, shape, strides, _, _, dtype, metadata),
        ):
            return View(storage, offset, shape, strides, dtype, metadata)
        case Symbol("torch._utils._rebuild_parameter"), (tensor, _, _):
            return tensor
        case Symbol("torch._utils._rebuild_parameter_with_state"), (tensor, _, _, _):
            return tensor
    raise _ForeignError("it calls what is no function, or not as torch does")


def _storage(persistent_id: object) -> Storage:
    match persistent_id:
        case ("storage", Symbol(name), str(key), str(), int(numel)) if name in STORAGE_DTYPES:
            return Storage(key, STORAGE_DTYPES[name], numel)
    raise _ForeignError("it refers to a storage as torch never does")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _ForeignError("a name is no text")
    return value


def _append_items(target: object, items: list[object]) -> None:
    if not isinstance(target, list):
        raise _ForeignError("it appends to what is no list")
    target.extend(items)


def _set_items(target: object, items: list[object]) -> None:
    if not isinstance(target, dict) or len(items) % 2:
        raise _ForeignError("it sets items of what is no map")
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Scalars only: to hash a tuple of tuples of tuples out of the memo could take for ever.
        if not isinstance(key, str | int | float | None):
            raise _ForeignError("a map has a key that is neither text nor number")
        target[key] = value

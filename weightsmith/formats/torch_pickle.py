"""The pickle inside a torch file, recorded and never run.

A stack machine over the opcodes that torch writes. Calls are looked up in a table and answered with
a record of what was asked for; no name in the pickle is ever imported. Python's own unpickler is no
choice: it sizes its memo by the pickle's word and sets attributes on whatever BUILD finds.
"""

import itertools
import pickletools
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from weightsmith.errors import PickleForbidden, PickleInvalid
from weightsmith.formats import pickle_names as names
from weightsmith.formats.pickle_names import CALLS, DTYPES, MENTIONED, OBJECTS, STORAGE_DTYPES

__all__ = [
    "DTYPES",
    "MAX_OPCODES",
    "STORAGE_DTYPES",
    "Record",
    "Storage",
    "Symbol",
    "View",
    "Wrapped",
    "record_pickle",
]

MAX_OPCODES: Final = 4_000_000
"""Room for 100 000 tensors; a pickle that goes on could fill the memory with empty lists."""

_MODULE: Final = re.compile(r"torch\.nn\.modules\..*|.*\.modeling_\w+\.\w+")
"""Classes of models and of their layers."""

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
    """A `Symbol` of `pickle_names.DTYPES`, or ``None``: that of the storage."""
    metadata: object
    """A map that is true at "conj" or "neg" if the stored bytes are not yet the tensor's values."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """A name that a pickle mentions and that is in the tables."""

    name: str


@dataclass(eq=False, slots=True)
class Record:
    """What a pickle says of one object or call; two are equal only if they are the same one."""

    name: str
    arguments: tuple[object, ...]
    state: object = None
    """What it was filled with."""

    def get(self, key: str) -> object:
        """A value of the map that it was filled with; None where there is none."""
        state = self.state
        if isinstance(state, tuple) and len(state) == 2:  # a "pair"
            state = state[1]
        return state.get(key) if isinstance(state, dict) else None


@dataclass(frozen=True, slots=True)
class Wrapped:
    """What a pickle says of a tensor of which this file holds a part: a DTensor or ShardedTensor.

    Nothing of it is checked yet.
    """

    kind: str
    """`pickle_names.DTENSOR` or `SHARDED_TENSOR`."""
    dtype: object
    shape: object
    """Of the whole tensor."""
    state: object


class _ForeignError(Exception):
    """Something that torch does not write; `record_pickle` adds the file."""


def record_pickle(raw: bytes, file: Path, *, max_opcodes: int | None = None) -> object:
    """The object that a torch pickle describes: maps, lists, tuples, text and numbers as they are,
    a `View` for each tensor, a `Wrapped` for each part of one, a `Record` for any other object.

    Raises: PickleForbidden, for a name outside the tables; PickleInvalid, for anything else that
    torch does not write.
    """
    try:
        # Text with escapes that Python does not know makes it warn before the opcode is refused.
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            return _record(raw, file, max_opcodes or MAX_OPCODES)
    except (IndexError, KeyError) as error:
        reason = "it takes from an empty stack or memo"
        raise PickleInvalid(file=file, reason=reason) from error
    except (ValueError, _ForeignError) as error:  # ValueError: bytes that are no opcodes
        raise PickleInvalid(file=file, reason=error) from error


def _record(raw: bytes, file: Path, max_opcodes: int) -> object:
    stack: list[object] = []
    below_marks: list[list[object]] = []
    memo: dict[object, object] = {}

    def pop_marked() -> list[object]:
        nonlocal stack
        items, stack = stack, below_marks.pop()
        return items

    for opcode, argument, _ in itertools.islice(pickletools.genops(raw), max_opcodes):
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
                state = stack.pop()
                _fill(stack[-1], state)
            case "NEWOBJ":
                arguments, made = stack.pop(), stack.pop()
                stack.append(_object(made, arguments))
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
    raise _ForeignError(f"it goes on after {max_opcodes} steps, as that of no model does")


def _symbol(name: str, file: Path) -> Symbol:
    if name not in MENTIONED:
        hint = None
        if _MODULE.match(name):
            hint = (
                "it is a model with its program: in an environment that you trust it in, load it"
                " and save its state_dict()"
            )
        raise PickleForbidden(file=file, name=name, hint=hint)
    return Symbol(name)


def _answer(function: object, arguments: object) -> object:
    """What a call gives: a record of its arguments, in the order in which torch writes them."""
    match function, arguments:
        case Symbol(names.ORDERED_DICT), ():
            return {}
        case Symbol(names.SIZE), (tuple(sizes),):
            return sizes
        case Symbol(names.TENSOR_V2), (storage, offset, shape, strides, _, _):
            return View(storage, offset, shape, strides, None, None)
        case Symbol(names.TENSOR_V2), (storage, offset, shape, strides, _, _, metadata):
            return View(storage, offset, shape, strides, None, metadata)
        case Symbol(names.TENSOR_V3), (storage, offset, shape, strides, _, _, dtype):
            return View(storage, offset, shape, strides, dtype, None)
        case Symbol(names.TENSOR_V3), (storage, offset, shape, strides, _, _, dtype, metadata):
            return View(storage, offset, shape, strides, dtype, metadata)
        case Symbol(names.PARAMETER), (tensor, _, _):
            return tensor
        case Symbol(names.PARAMETER_WITH_STATE), (tensor, _, _, _):
            return tensor
        case Symbol(names.FROM_TYPE), (Symbol(names.WRAPPER), Symbol(kind), tuple(wrapper), state):
            return _wrapped(kind, wrapper, state)
        case (
            Symbol(names.FROM_TYPE),
            (
                Symbol(names.TENSOR_V2 | names.TENSOR_V3) as rebuilder,
                Symbol(names.TENSOR),
                tuple(tensor_arguments),
                dict(),  # attributes that somebody set, such as DeepSpeed's ds_id
            ),
        ):
            return _answer(rebuilder, tensor_arguments)
        case Symbol(names.GETATTR), (Symbol(names.SHARDED_TENSOR), names.GROUP):
            return Symbol(names.MADE)
        case Symbol(name), tuple(values) if name in CALLS:
            least, most = CALLS[name]
            plain = all(isinstance(each, str | int) for each in values)
            if plain and least <= len(values) <= most:
                return Record(name, values)
    raise _ForeignError("it calls what is no function, or not as torch does")


def _wrapped(kind: str, arguments: tuple[object, ...], state: object) -> Wrapped:
    """A part of a tensor, in the order in which torch writes what it knows of the whole."""
    match arguments:
        case (Symbol(same), dtype, shape, _, _, _, _, _) if same == kind != names.TENSOR:
            return Wrapped(kind, dtype, shape, state)
    raise _ForeignError("it makes a part of a tensor as torch never does")


def _object(made: object, arguments: object) -> Record:
    """A new object of a name that may be one."""
    match made, arguments:
        case Symbol(name), tuple(values) if name in OBJECTS:
            if len(values) == OBJECTS[name].arguments:
                return Record(name, values)
    raise _ForeignError("it makes an object of what is no class, or not as torch does")


def _fill(target: object, state: object) -> None:
    """Keep what an object is filled with.

    A map is filled with the `_metadata` of a state dict, module versions, which say nothing of
    tensors.
    """
    if isinstance(target, dict):
        return
    if not isinstance(target, Record) or target.name not in OBJECTS or target.state is not None:
        raise _ForeignError("it sets attributes of what has none")
    match OBJECTS[target.name].state, state:
        case ("map", dict()) | ("pair", (None, dict())) | ("five", (_, _, _, _, _)):
            target.state = state
        case _:
            raise _ForeignError(f"it fills {target.name} as torch never does")


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
        # A record is hashed by what it is, not by what it holds.
        if not isinstance(key, str | int | float | Record | None):
            raise _ForeignError("a map has a key that is neither text nor number")
        target[key] = value

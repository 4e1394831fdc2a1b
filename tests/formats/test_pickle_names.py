"""Each name that a pickle may mention is admitted alone: its neighbours are refused."""

import pickle
from pathlib import Path

import pytest

from weightsmith.errors import PickleForbidden, PickleInvalid
from weightsmith.formats import pickle_names as names
from weightsmith.formats.torch_pickle import Record, record_pickle

FILE = Path("model.pt")
EMPTY_TUPLE, EMPTY_DICT, NEWOBJ, REDUCE, BUILD, NONE = b")", b"}", b"\x81", b"R", b"b", b"N"
STATES = {"": None, "map": {"a": 1}, "pair": (None, {"a": 1}), "five": (1, 2, 3, 4, 5)}


def record(*parts: bytes) -> object:
    return record_pickle(b"\x80\x02" + b"".join(parts) + b".", FILE)


def symbol(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def value(content: object) -> bytes:
    """Any plain value, without the opcodes at either end."""
    return pickle.dumps(content, 2)[2:-1]


def filled(name: str, state: object) -> bytes:
    arguments = tuple(range(names.OBJECTS[name].arguments))
    return symbol(name) + value(arguments) + NEWOBJ + value(state) + BUILD


@pytest.mark.parametrize("name", sorted(names.MENTIONED))
def test_a_neighbour_of_an_admitted_name_is_refused(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    record(symbol(name))
    for neighbour in (
        f"{name}_",
        name[:-1],
        f"{module}.{attribute.swapcase()}",
        f"{module}_.{attribute}",
        f"os.{attribute}",
        f"{name}.__init__",
    ):
        with pytest.raises(PickleForbidden) as caught:
            record(symbol(neighbour))
        assert caught.value.values["name"] == neighbour


@pytest.mark.parametrize("name", sorted({*names.OBJECTS} - {names.MADE}))
def test_an_object_is_recorded_with_its_state_and_with_no_other(name: str) -> None:
    use = names.OBJECTS[name]
    for kind, state in STATES.items():
        if kind == use.state and kind:
            made = record(filled(name, state))
            assert isinstance(made, Record)
            assert (made.name, made.state) == (name, state)
        elif kind or use.state != "":
            with pytest.raises(PickleInvalid, match="as torch never does"):
                record(filled(name, state))


@pytest.mark.parametrize("name", sorted({*names.OBJECTS} - {names.MADE}))
def test_a_class_is_never_called_and_never_filled_twice(name: str) -> None:
    use = names.OBJECTS[name]
    with pytest.raises(PickleInvalid, match="it calls what is no function"):
        record(symbol(name), EMPTY_TUPLE, REDUCE)
    with pytest.raises(PickleInvalid, match="it makes an object"):
        record(symbol(name), value(tuple(range(use.arguments + 1))), NEWOBJ)
    if use.state:
        twice = filled(name, STATES[use.state]) + value(STATES[use.state]) + BUILD
        with pytest.raises(PickleInvalid, match="it sets attributes of what has none"):
            record(twice)


@pytest.mark.parametrize("name", sorted(names.CALLS))
def test_a_call_is_recorded_with_plain_values_alone(name: str) -> None:
    least, most = names.CALLS[name]
    made = record(symbol(name), value(("cpu",) * most), REDUCE)
    assert isinstance(made, Record)
    assert made.arguments == ("cpu",) * most
    too_many, too_deep = ("cpu",) * (most + 1), ((),) * max(least, 1)
    for wrong in (too_many, too_deep):
        with pytest.raises(PickleInvalid, match="it calls what is no function"):
            record(symbol(name), value(wrong), REDUCE)
    with pytest.raises(PickleInvalid, match="it makes an object"):
        record(symbol(name), EMPTY_TUPLE, NEWOBJ)


@pytest.mark.parametrize("name", sorted(names.VALUES))
def test_a_value_is_neither_called_nor_made(name: str) -> None:
    for opcode in (REDUCE, NEWOBJ):
        with pytest.raises(PickleInvalid, match=r"it (calls|makes an object of) what is no"):
            record(symbol(name), EMPTY_TUPLE, opcode)


def test_one_attribute_of_one_class_is_taken_and_no_other() -> None:
    pair = symbol(names.SHARDED_TENSOR), value(names.GROUP)
    made = record(symbol(names.GETATTR), *pair, b"\x86", REDUCE, EMPTY_TUPLE, NEWOBJ)
    assert isinstance(made, Record)
    assert made.name == names.MADE
    for other in (
        (symbol(names.DTENSOR), value(names.GROUP)),
        (symbol(names.SHARDED_TENSOR), value("__reduce__")),
        (value(names.SHARDED_TENSOR), value(names.GROUP)),
        (symbol(names.TENSOR), value(names.GROUP)),
    ):
        with pytest.raises(PickleInvalid, match="it calls what is no function"):
            record(symbol(names.GETATTR), *other, b"\x86", REDUCE)
    with pytest.raises(PickleForbidden):
        record(symbol(names.MADE))


def test_a_part_of_a_tensor_must_be_one_kind_throughout() -> None:
    def part(kind: str, inner: str) -> bytes:
        arguments = symbol(inner) + NONE * 2 + NONE * 5
        return (
            symbol(names.FROM_TYPE)
            + b"("
            + symbol(names.WRAPPER)
            + symbol(kind)
            + b"("
            + arguments
            + b"t"
            + NONE
            + b"t"
            + REDUCE
        )

    record(part(names.DTENSOR, names.DTENSOR))
    for kind, inner in (
        (names.DTENSOR, names.SHARDED_TENSOR),
        (names.TENSOR, names.TENSOR),
        (names.DTENSOR, "torch.float32"),
    ):
        with pytest.raises(PickleInvalid):
            record(part(kind, inner))


def test_an_object_may_be_a_key_and_two_alike_are_two() -> None:
    index = filled("torch.distributed.checkpoint.metadata.MetadataIndex", {"fqn": "w"})
    made = record(EMPTY_DICT, b"(", index, value(1), index, value(2), b"u")
    assert isinstance(made, dict)
    assert sorted(made.values()) == [1, 2]

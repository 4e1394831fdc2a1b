"""JSON is read in one way only."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weightsmith.errors import JsonInvalid
from weightsmith.formats.strict_json import iter_members, parse_json

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    # A lone surrogate is no text.
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])), inner
    ),
    max_leaves=20,
)  # fmt: skip

REFUSED = {
    "repeated key": (b'{"a": 1, "b": 2, "b": 3}', "the key 'b' is repeated"),
    "repeated key after its escape": (b'{"a": 1, "\\u0061": 2}', "the key 'a' is repeated"),
    "repeated key inside": (b'[{"x": {"a": 1, "a": 1}}]', "the key 'a' is repeated"),
    "NaN": (b'{"a": NaN}', "NaN is no JSON number"),
    "Infinity": (b"[Infinity]", "Infinity is no JSON number"),
    "minus Infinity": (b"[-Infinity]", "-Infinity is no JSON number"),
    "not UTF-8": (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "byte 0 is not UTF-8"),
    "an encoded surrogate": (b'"\xed\xa0\x80"', "byte 1 is not UTF-8"),
    "half a surrogate pair": (b'{"a": ["\\ud800"]}', "half of a surrogate pair"),
    "half a pair in a key": (b'{"\\uDFFF": 1}', "half of a surrogate pair"),
    "syntax": (b'{"a": 1,\n "b" 2}', "Expecting ':' delimiter at line 2 column 6"),
    "two documents": (b"{} {}", "Extra data at line 1 column 4"),
    "a comment": (b"{} // no", "Extra data at line 1 column 4"),
    "empty": (b"", "it is empty"),
    "line break in a string": (b'"a\nb"', "Invalid control character at line 1 column 3"),
    "deep lists": (b"[" * 200_000 + b"]" * 200_000, "it nests too deep"),
    "deep maps": (b'{"a":' * 200_000, "it nests too deep"),
    "a huge integer": (b"1" * 5000, "an integer has thousands of digits"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "Unexpected UTF-8 BOM"),
}


@pytest.mark.parametrize("raw, reason", REFUSED.values(), ids=REFUSED.keys())
def test_what_has_no_single_meaning_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(JsonInvalid) as caught:
        parse_json(raw, Path("dir/config.json"))
    assert reason in str(caught.value)
    assert "dir/config.json" in str(caught.value).replace("\\", "/")


@given(JSON_VALUES, st.booleans(), st.sampled_from([None, 2]))
def test_every_plain_document_is_read_as_python_writes_it(
    value: object, ascii_only: bool, indent: int | None
) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert parse_json(raw, "x.json") == value


def test_a_byte_order_mark_passes_where_it_is_allowed() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a": 1}', "x.json", bom_allowed=True) == {"a": 1}
    assert parse_json(b'{"a": 1}', "x.json", bom_allowed=True) == {"a": 1}


def test_an_escaped_surrogate_pair_is_one_character() -> None:
    assert parse_json(b'"\\ud83d\\ude00"', "x.json") == "\N{GRINNING FACE}"


def test_the_integer_that_tokenizers_write_for_no_limit_is_read() -> None:
    assert parse_json(b"1000000000000000019884624838656", "x.json") == int(1e30)


# --- A map, member by member ----------------------------------------------------------------------


@pytest.mark.parametrize("raw, reason", REFUSED.values(), ids=REFUSED.keys())
def test_what_has_no_single_meaning_is_refused_member_by_member(raw: bytes, reason: str) -> None:
    with pytest.raises(JsonInvalid) as caught:
        list(iter_members(raw, Path("dir/config.json")))
    assert reason in str(caught.value) or not raw.startswith(b"{")


@given(st.text('{}[]":,1a \n\\u', max_size=12) | JSON_VALUES.map(json.dumps), st.data())
def test_both_ways_to_read_a_map_take_and_refuse_the_same(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    for raw in (
        text.encode(),
        (text[:at] + data.draw(st.sampled_from(',:"} ')) + text[at:]).encode(),
    ):
        try:
            whole = parse_json(raw, "x.json")
        except JsonInvalid:
            whole = None
        if isinstance(whole, dict):
            assert list(iter_members(raw, "x.json")) == list(whole.items())
        else:
            with pytest.raises(JsonInvalid):
                list(iter_members(raw, "x.json"))


@pytest.mark.parametrize(
    "raw", [b'{"a": 1,}', b"{,}", b'{"a": 1 "b": 2}', b"{1: 2}", b'{"a": 1', b'{"a"}', b"{} x"]
)
def test_the_syntax_between_members_is_told_as_python_tells_it(raw: bytes) -> None:
    with pytest.raises(JsonInvalid) as whole:
        parse_json(raw, "x.json")
    with pytest.raises(JsonInvalid) as members:
        list(iter_members(raw, "x.json"))
    if b",}" not in raw:  # later Pythons have a sentence of its own for that comma
        assert str(members.value) == str(whole.value)


def test_members_before_a_fault_come_first() -> None:
    members = iter_members(b'{"a": 1, "b": [2, 3], "b": 4}', "x.json")
    assert [next(members), next(members)] == [("a", 1), ("b", [2, 3])]
    with pytest.raises(JsonInvalid, match="the key 'b' is repeated"):
        next(members)

"""tokenizer.model, read without protobuf."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.mutate_tokenizers import join_fields, varint
from tests.support.paths import VECTORS
from tests.support.tokenizer_folders import processor, trained
from weightsmith.errors import (
    DamagedInput,
    LfsPointer,
    TokenizerInvalid,
    TokenizerTruncated,
    WebPage,
)
from weightsmith.formats.sentencepiece_model import (
    ModelType,
    Piece,
    PieceType,
    is_tiktoken,
    parse_sentencepiece_model,
)

LINES = ["the quick brown fox", "jumps over the lazy dog", "twelve 12 times"] * 40
POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:9e556afd44213b6bd1be2b850ebbbd98f5481437a8021afaf58ee7fb1818d347\nsize 499723\n"
)
KINDS = {
    PieceType.UNKNOWN: "is_unknown",
    PieceType.CONTROL: "is_control",
    PieceType.UNUSED: "is_unused",
    PieceType.BYTE: "is_byte",
}


@pytest.fixture(scope="module")
def model(vectors: Path) -> bytes:
    return (vectors / "sp.model").read_bytes()


def assert_agrees_with_sentencepiece(raw: bytes) -> None:
    ours, theirs = parse_sentencepiece_model(raw), processor(raw)
    assert len(ours.pieces) == theirs.vocab_size()
    for number, piece in enumerate(ours.pieces):
        assert piece.text == theirs.id_to_piece(number)
        assert piece.score == theirs.get_score(number)
        for kind, method in KINDS.items():
            assert getattr(theirs, method)(number) == (piece.type is kind)
    ids = [-1 if n is None else n for n in (ours.bos_id, ours.eos_id, ours.pad_id)]
    assert ids == [theirs.bos_id(), theirs.eos_id(), theirs.pad_id()]
    assert ours.unk_id == theirs.unk_id()


def test_llama_s_kind_of_model_is_read_as_sentencepiece_reads_it(model: bytes) -> None:
    assert_agrees_with_sentencepiece(model)
    parsed = parse_sentencepiece_model(model)
    assert (parsed.add_dummy_prefix, parsed.remove_extra_whitespaces) == (True, False)
    assert (parsed.charsmap, parsed.whitespace_as_suffix) == (b"", False)


@pytest.mark.parametrize(
    "settings",
    [
        {"bos_id": 0, "eos_id": 1, "unk_id": 2, "pad_id": 3},
        {"bos_id": -1, "eos_id": 5, "unk_id": 0, "pad_id": 1},
        {"model_type": "unigram", "byte_fallback": False, "unk_piece": "??", "eos_piece": "END"},
        {"user_defined_symbols": ["<x>", "<y>"], "control_symbols": ["<c>"]},
        {"normalization_rule_name": "nmt_nfkc", "treat_whitespace_as_suffix": True},
    ],
)
def test_other_settings_and_ids_are_read_as_sentencepiece_reads_them(
    settings: dict[str, object],
) -> None:
    raw = trained(LINES, 320, **settings)
    assert_agrees_with_sentencepiece(raw)
    parsed = parse_sentencepiece_model(raw)
    assert parsed.whitespace_as_suffix == ("treat_whitespace_as_suffix" in settings)
    assert bool(parsed.charsmap) == ("normalization_rule_name" in settings)


@pytest.mark.parametrize("every", [70, pytest.param(7, marks=pytest.mark.slow)])
def test_a_model_cut_short_anywhere_is_refused_as_cut_short(every: int, model: bytes) -> None:
    for nbytes in range(0, len(model), every):
        with pytest.raises(TokenizerTruncated):
            parse_sentencepiece_model(model[:nbytes])


def test_what_lies_in_place_of_a_model_is_named() -> None:
    with pytest.raises(LfsPointer, match="499723 bytes are missing"):
        parse_sentencepiece_model(POINTER)
    with pytest.raises(WebPage):
        parse_sentencepiece_model(b"<!DOCTYPE html><html><body>Access denied</body></html>")
    with pytest.raises(TokenizerInvalid, match="wire type"):
        parse_sentencepiece_model(b"<just some text>")
    with pytest.raises(TokenizerInvalid, match="no pieces"):
        parse_sentencepiece_model(b"\x12\x00\x1a\x00")


def test_two_pieces_of_one_text_are_refused(model: bytes) -> None:
    with pytest.raises(TokenizerInvalid, match="same text"):
        parse_sentencepiece_model(b"\x0a\x03\x0a\x01e" + model)


def test_unknown_fields_are_skipped(model: bytes) -> None:
    unknown = b"\xc2\x3e\x03abc" + b"\xc8\x3e\x05" + b"\xcd\x3e1234" + b"\xc9\x3e12345678"
    assert parse_sentencepiece_model(unknown + model) == parse_sentencepiece_model(model)


@given(st.binary(max_size=200), st.integers(0, 6000))
def test_damage_of_any_kind_is_refused_or_harmless(noise: bytes, at: int) -> None:
    model = (VECTORS / "sp.model").read_bytes()
    for raw in (noise, model[:at] + noise + model[at + len(noise) :]):
        try:
            parsed = parse_sentencepiece_model(raw)
        except DamagedInput:
            continue
        assert parsed.pieces[parsed.unk_id].type is PieceType.UNKNOWN


def test_a_tiktoken_table_of_the_same_name_is_told_apart(model: bytes) -> None:
    assert is_tiktoken(b"IQ== 0\nIg== 1\n")
    assert not is_tiktoken(model)


# --- as protobuf and sentencepiece read them ------------------------------------------------------


def piece(
    text: str, kind: PieceType = PieceType.NORMAL, score: float = 0.0
) -> tuple[int, int, bytes]:
    inner = [(1, 2, text.encode()), (2, 5, struct.pack("<f", score)), (3, 0, varint(kind))]
    return 1, 2, join_fields(inner)


SMALL = [piece("<unk>", PieceType.UNKNOWN), piece("<s>", PieceType.CONTROL), piece("a")]
SETTINGS = [(2, 2, b""), (3, 2, b"")]
BYTES = [piece(f"<0x{value:02X}>", PieceType.BYTE) for value in range(256)]
FALLBACK = (2, 2, join_fields([(35, 0, varint(1))]))


def test_settings_that_are_there_twice_are_put_together() -> None:
    twice = [(2, 2, join_fields([(3, 0, varint(2))])), (2, 2, join_fields([(24, 0, varint(1))]))]
    raw = join_fields([*SMALL, *twice, *SETTINGS])
    assert_agrees_with_sentencepiece(raw)
    parsed = parse_sentencepiece_model(raw)
    assert (parsed.model_type, parsed.whitespace_as_suffix) == (ModelType.BPE, True)


def test_a_field_of_another_type_than_it_should_have_is_none() -> None:
    odd = [(1, 2, b"b"), (2, 2, b"1234"), (2, 0, varint(7)), (3, 1, bytes(8))]
    raw = join_fields([*SMALL, (1, 2, join_fields(odd)), *SETTINGS])
    assert_agrees_with_sentencepiece(raw)
    assert parse_sentencepiece_model(raw).pieces[-1] == Piece("b", 0.0, PieceType.NORMAL)


def test_a_special_piece_without_a_name_has_its_usual_one() -> None:
    raw = join_fields([*SMALL, (2, 2, join_fields([(46, 2, b"")])), *SETTINGS])
    assert_agrees_with_sentencepiece(raw)
    assert parse_sentencepiece_model(raw).bos_id == 1


@pytest.mark.parametrize(
    "fields",
    [
        SMALL[:2],
        [*SMALL, piece("")],
        [*SMALL, piece("b", score=float("nan"))],
        [*SMALL, piece("<0x41>", PieceType.BYTE)],
        [*SMALL, FALLBACK],
        [*SMALL, FALLBACK, *BYTES[1:]],
        [*SMALL, FALLBACK, *BYTES[1:], piece("<0x00", PieceType.BYTE)],
    ],
    ids=["special", "empty", "nan", "byte", "no-bytes", "a-byte-less", "no-byte"],
)
def test_pieces_that_sentencepiece_refuses_are_refused(
    fields: list[tuple[int, int, bytes]],
) -> None:
    raw = join_fields([*fields, *SETTINGS])
    with pytest.raises(TokenizerInvalid):
        parse_sentencepiece_model(raw)
    with pytest.raises(RuntimeError):
        processor(raw)


def test_all_bytes_and_the_word_for_them_are_accepted() -> None:
    assert_agrees_with_sentencepiece(join_fields([*SMALL, *BYTES, *SETTINGS, FALLBACK]))

"""A sentencepiece model (``tokenizer.model``) read without protobuf.

Only what a repair must know is kept; every other field is skipped by its length.
Source: sentencepiece ``src/sentencepiece_model.proto``; protobuf "Encoding" (wire format).
"""

import enum
import math
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from weightsmith.errors import TokenizerInvalid, TokenizerTruncated
from weightsmith.formats.sniff import START_NBYTES, refuse_wrong_start

SPACE: Final = "\u2581"
"""What sentencepiece writes for a space."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_NUMBERS: Final = range(1, 1 << 29)
"""That fields may have."""
_Fields = dict[tuple[int, int], int | bytes]
"""Values by number and wire type: a field of another type than it should have is none, as for
protobuf. Of several values the last one counts."""
_MASK: Final = (1 << 64) - 1
"""A number has 64 bits; further ones are dropped, as by protobuf."""
_PIECE, _TRAINER, _NORMALIZER = 1, 2, 3
"""Fields of the model."""
_BYTE_PIECES: Final = {f"<0x{value:02X}>" for value in range(256)}


class PieceType(enum.IntEnum):
    """What a piece is for."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class ModelType(enum.IntEnum):
    """How the model cuts text into pieces."""

    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


@dataclass(frozen=True, slots=True)
class Piece:
    """One entry of the vocabulary; its id is its place in `SentencePieceModel.pieces`."""

    text: str
    score: float
    type: PieceType


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """What a ``tokenizer.model`` says: vocabulary, special ids, and how text is prepared."""

    pieces: tuple[Piece, ...]
    model_type: ModelType
    bos_piece: str
    eos_piece: str
    pad_piece: str
    add_dummy_prefix: bool
    """A space is put before the text."""
    remove_extra_whitespaces: bool
    escape_whitespaces: bool
    """Spaces become U+2581 before the text is cut."""
    whitespace_as_suffix: bool
    charsmap: bytes
    """A compiled table of character replacements; empty for LLaMA, which normalizes nothing."""

    @property
    def unk_id(self) -> int:
        """The id of the piece of type unknown; every sound model has one."""
        return next(i for i, piece in enumerate(self.pieces) if piece.type is PieceType.UNKNOWN)

    @property
    def bos_id(self) -> int | None:
        """The id of the control piece that begins a text, if there is one."""
        return self._control_id(self.bos_piece)

    @property
    def eos_id(self) -> int | None:
        """The id of the control piece that ends a text, if there is one."""
        return self._control_id(self.eos_piece)

    @property
    def pad_id(self) -> int | None:
        """The id of the control piece that fills up a batch, if there is one; LLaMA has none."""
        return self._control_id(self.pad_piece)

    def _control_id(self, text: str) -> int | None:
        # As sentencepiece does: by name and type; the numbers in trainer_spec are only a wish.
        for i, piece in enumerate(self.pieces):
            if piece.text == text and piece.type is PieceType.CONTROL:
                return i
        return None


def parse_sentencepiece_model(raw: bytes, file: str = "tokenizer.model") -> SentencePieceModel:
    """The model in `raw`.

    Raises: LfsPointer or WebPage, if one of these lies in its place; TokenizerTruncated, if the
        file ends too early; TokenizerInvalid, if it is something else.
    """
    refuse_wrong_start(raw[:START_NBYTES], file)
    try:
        return _model(raw, file)
    except _CutShortError as error:
        raise TokenizerTruncated(file=file, size=len(raw)) from error
    except (ValueError, struct.error) as error:
        raise TokenizerInvalid(file=file, reason=error) from error


def is_tiktoken(raw: bytes) -> bool:
    """Whether this is a table for tiktoken, which Llama 3 keeps in a file of the same name."""
    return bool(re.match(rb"[A-Za-z0-9+/]+=* \d+\n", raw))


class _CutShortError(Exception):
    """The bytes end inside a field."""


def _model(raw: bytes, file: str) -> SentencePieceModel:
    pieces: list[Piece] = []
    settings: dict[int, _Fields] = {}
    for (number, wire), value in _fields(raw):
        if wire != _BYTES or not isinstance(value, bytes):
            continue
        if number == _PIECE:
            pieces.append(_piece(value))
        elif number in {_TRAINER, _NORMALIZER}:  # of several, protobuf makes one
            settings.setdefault(number, {}).update(_fields(value))
    if not raw:
        raise _CutShortError
    if not pieces:
        raise TokenizerInvalid(file=file, reason="it holds no pieces")
    if len(settings) < 2:  # they follow the pieces
        raise _CutShortError
    trainer, normalizer = settings[_TRAINER], settings[_NORMALIZER]
    if reason := _contradiction(pieces, byte_fallback=bool(_number(trainer, 35, 0))):
        raise TokenizerInvalid(file=file, reason=reason)
    return SentencePieceModel(
        pieces=tuple(pieces),
        model_type=ModelType(_number(trainer, 3, ModelType.UNIGRAM)),
        bos_piece=_text(trainer, 46, "") or "<s>",
        eos_piece=_text(trainer, 47, "") or "</s>",
        pad_piece=_text(trainer, 48, "") or "<pad>",
        add_dummy_prefix=bool(_number(normalizer, 3, 1)),
        remove_extra_whitespaces=bool(_number(normalizer, 4, 1)),
        escape_whitespaces=bool(_number(normalizer, 5, 1)),
        whitespace_as_suffix=bool(_number(trainer, 24, 0)),
        charsmap=_bytes(normalizer, 2, b""),
    )


def _contradiction(pieces: Sequence[Piece], *, byte_fallback: bool) -> str | None:
    """Why sentencepiece would refuse these pieces; None if it would not."""
    texts = {piece.text for piece in pieces}
    special = {PieceType.UNKNOWN, PieceType.CONTROL, PieceType.BYTE}
    spelled = {piece.text for piece in pieces if piece.type is PieceType.BYTE}
    reasons = {
        "it does not have exactly one unknown piece": [piece.type for piece in pieces].count(
            PieceType.UNKNOWN
        )
        != 1,
        "it holds special pieces only": all(piece.type in special for piece in pieces),
        "two of its pieces are the same text": len(texts) < len(pieces),
        "one of its pieces is empty": "" in texts,
        "the score of a piece is no number": not all(math.isfinite(e.score) for e in pieces),
        "its pieces for bytes are not those of all 256": spelled
        != (_BYTE_PIECES if byte_fallback else set()),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _piece(raw: bytes) -> Piece:
    fields = dict(_fields(raw))
    (score,) = struct.unpack("<f", _bytes(fields, 2, bytes(4), _FIXED32))
    return Piece(_text(fields, 1, ""), score, PieceType(_number(fields, 3, PieceType.NORMAL)))


def _number(fields: _Fields, number: int, default: int) -> int:
    value = fields.get((number, _VARINT), default)
    return value if isinstance(value, int) else default


def _bytes(fields: _Fields, number: int, default: bytes, wire: int = _BYTES) -> bytes:
    value = fields.get((number, wire), default)
    return value if isinstance(value, bytes) else default


def _text(fields: _Fields, number: int, default: str) -> str:
    return _bytes(fields, number, default.encode()).decode()


def _fields(raw: bytes) -> Iterator[tuple[tuple[int, int], int | bytes]]:
    """Each field's number and wire type, and its value: an int for a varint, bytes for everything
    else.
    """
    at, end = 0, len(raw)
    while at < end:
        key, at = _varint(raw, at)
        number, wire = key >> 3, key & 7
        if number not in _NUMBERS:
            raise ValueError(f"field number {number}")
        if wire == _VARINT:
            value, at = _varint(raw, at)
            yield (number, wire), value
            continue
        if wire == _BYTES:
            nbytes, at = _varint(raw, at)
        elif wire == _FIXED32:
            nbytes = 4
        elif wire == _FIXED64:
            nbytes = 8
        else:
            raise ValueError(f"wire type {wire}")
        if nbytes > end - at:
            raise _CutShortError
        yield (number, wire), raw[at : at + nbytes]
        at += nbytes


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """The number at `at` and where the next field begins."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(raw):
            raise _CutShortError
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK, at
    raise ValueError("a number of more than 10 bytes")

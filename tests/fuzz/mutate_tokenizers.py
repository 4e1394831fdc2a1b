"""Changes of tokenizer files that keep their form: fields of protobuf, lines of ranks, vocabularies
of ``tokenizer.json``.
"""

import base64
import json
import random
import struct
from typing import Any, Final

from tests.fuzz.mutate import NUMBERS, NUMBERS_BEYOND, WORDS, flip, json_text

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
Field = tuple[int, int, bytes]
"""Number, wire type, and what follows the key: of bytes, without their length."""

_TEXTS: Final = ("<s>", "</s>", "<unk>", "<pad>", "a", "ab", "▁", "▁a", "<0x41>", "", " ", "é")
_SCORES: Final = (0.0, -0.0, -1.0, -2.0, -3.5, 1e-40, -1e9, 3e38, -1e-3, 12.0, float("nan"))
_TRAINER: Final = (3, 4, 24, 35, 40, 41, 42, 43, 44, 45, 46, 47, 48)
"""Fields of a trainer's settings: type, sizes, flags, ids and texts of special pieces."""
_NORMALIZER: Final = (1, 2, 3, 4, 5, 6)


def sentencepiece(raw: bytes, chance: random.Random) -> bytes:
    """A model with a few pieces or settings changed: mostly sound protobuf again."""
    try:
        fields = split_fields(raw)
    except (IndexError, ValueError):
        return flip(raw, chance)
    for _ in range(chance.choice((1, 1, 2, 4))):
        _change_message(fields, chance)
    made = join_fields(fields)
    return flip(made, chance) if chance.random() < 0.1 else made


def split_fields(raw: bytes) -> list[Field]:
    """The fields of a message.

    Raises: IndexError, ValueError, if it is none.
    """
    fields, at = [], 0
    while at < len(raw):
        key, at = _read_varint(raw, at)
        number, wire, start = key >> 3, key & 7, at
        if wire == _VARINT:
            _, at = _read_varint(raw, at)
        elif wire == _BYTES:
            length, start = _read_varint(raw, at)
            at = start + length
        elif wire in {_FIXED32, _FIXED64}:
            at += 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire}")
        if at > len(raw):
            raise IndexError
        fields.append((number, wire, raw[start:at]))
    return fields


def join_fields(fields: list[Field]) -> bytes:
    """A message of these fields."""
    made = bytearray()
    for number, wire, content in fields:
        made += varint(number << 3 | wire)
        made += varint(len(content)) if wire == _BYTES else b""
        made += content
    return bytes(made)


def varint(number: int) -> bytes:
    """A number as protobuf writes it; of a negative one, 64 bits."""
    number &= (1 << 64) - 1
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*made, number])


def _read_varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (raw[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if raw[at - 1] < 0x80:
            return value, at
        if shift > 63:
            raise ValueError


def _change_message(fields: list[Field], chance: random.Random) -> None:
    """A piece or the settings changed; or put in twice, taken away, put elsewhere."""
    settings = [n for n, (number, _, _) in enumerate(fields) if number in {2, 3}]
    if not fields:
        return
    at = chance.choice(settings) if settings and chance.random() < 0.4 else None
    if at is None:
        # At the front stands what is particular: unknown, control, bytes; at the end, what is not.
        part = chance.choice((fields[:4], fields, fields[262:] or fields))
        at = fields.index(chance.choice(part))
    number, wire, content = fields[at]
    match chance.randrange(12):
        case 0:
            del fields[at]
        case 1:
            fields.insert(chance.randrange(len(fields) + 1), fields[at])
        case 2:
            other = chance.randrange(len(fields))
            fields[at], fields[other] = fields[other], fields[at]
        case 3:
            fields.insert(at, (chance.choice((1, 2, 3, 4, 5, 200)), *_value(chance)))
        case _:
            try:
                inner = split_fields(content) if wire == _BYTES else []
            except (IndexError, ValueError):
                inner = []
            _change_field(inner, number, chance)
            fields[at] = (number, _BYTES, join_fields(inner))


def _change_field(inner: list[Field], of: int, chance: random.Random) -> None:
    """One field of a piece (1), of the trainer's (2) or the normalizer's settings (3)."""
    if inner and chance.random() < 0.1:
        del inner[chance.randrange(len(inner))]
        return
    if chance.random() < 0.08:
        inner.insert(
            chance.randrange(len(inner) + 1), (chance.choice((1, 2, 3, 99)), *_value(chance))
        )
        return
    if of == 1:
        number = chance.choice((1, 2, 3))
        made: Field
        if number == 1:
            made = (1, _BYTES, chance.choice(_TEXTS).encode())
        elif number == 2:
            made = (2, _FIXED32, struct.pack("<f", chance.choice(_SCORES)))
        else:
            made = (3, _VARINT, varint(chance.choice((1, 1, 1, 2, 3, 3, 4, 4, 5, 5, 6, 0, 7))))
    else:
        number = chance.choice(_TRAINER if of == 2 else _NORMALIZER)
        is_text = number >= 45 or (of == 3 and number in {1, 2, 6})
        small = varint(chance.choice((0, 1, 1, 2, 3, 4, 255, 2**31, -1)))
        made = (number, _VARINT, small)
        if is_text:
            made = (number, _BYTES, chance.choice(_TEXTS).encode())
    there = [n for n, each in enumerate(inner) if each[0] == number]
    if there and chance.random() < 0.8:
        inner[there[0]] = made
    else:
        inner.append(made)


def _value(chance: random.Random) -> tuple[int, bytes]:
    """A wire type and something of it."""
    match chance.randrange(4):
        case 0:
            return _VARINT, varint(chance.choice(NUMBERS + NUMBERS_BEYOND[:7]))
        case 1:
            return _FIXED32, struct.pack("<f", chance.choice(_SCORES))
        case 2:
            return _FIXED64, struct.pack("<d", chance.choice(_SCORES))
        case _:
            text = chance.choice((*_TEXTS, *WORDS)).encode("utf-8", "surrogatepass")
            return _BYTES, chance.choice((text, b"\xff\xfe", b"\x0d\x00\x00\x80\xbf"))


def ranks(raw: bytes, chance: random.Random) -> bytes:
    """A table of ranks with a few lines changed."""
    lines = raw.split(b"\n")
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(lines))
        token, _, rank = lines[at].partition(b" ")
        match chance.randrange(30):  # most leave it sound
            case 0:
                lines[at] = token + b"=" + b" " + rank
            case 1:
                lines[at] = chance.choice((b" " + rank, token, token + b"  " + rank, b"", b"\r"))
            case 2:
                lines[at] = lines[at] + chance.choice((b" ", b"\r", b" 7", b"\x0b", b".0"))
            case 3:
                number = chance.choice((*NUMBERS, *NUMBERS_BEYOND))
                lines[at] = token + b" " + chance.choice((b"%d", b"+%d", b"0%d")) % number
            case 4:
                lines.insert(at, lines[chance.randrange(len(lines))])
            case 5:
                del lines[at]
                lines = lines or [b""]
            case 6:
                return flip(b"\n".join(lines), chance)
            case _:
                _more_ranks(lines, chance)
    end = chance.choice((b"\n", b"\n", b"\n", b"\r\n", b"\r"))
    return end.join(lines)


def _more_ranks(lines: list[bytes], chance: random.Random) -> None:
    """A token of two others at the end, or two tokens with each other's rank: sound still."""
    count = sum(bool(each) for each in lines)
    known = [each.partition(b" ")[0] for each in lines if each]
    if chance.random() < 0.5 and len(known) > 1:
        one, other = (chance.randrange(count) for _ in range(2))
        tokens = [each.partition(b" ") for each in lines]
        lines[one] = tokens[other][0] + b" " + tokens[one][2]
        lines[other] = tokens[one][0] + b" " + tokens[other][2]
        return
    try:
        pair = b"".join(base64.b64decode(chance.choice(known[-40:])) for _ in range(2))
    except (ValueError, IndexError):
        return
    lines.insert(count, base64.b64encode(pair) + b" %d" % count)


def tokenizer_json(raw: bytes, chance: random.Random) -> bytes:
    """A ``tokenizer.json`` whose tokens, merges or rules are changed, mostly sound still."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return flip(raw, chance)
    if not isinstance(document, dict) or chance.random() < 0.25:
        return json_text(raw, chance)
    for _ in range(chance.choice((1, 1, 2, 3))):
        if chance.random() < 0.5:
            _change_added(document, chance)
        else:
            _change_model(document, chance)
    return json.dumps(document).encode()


def _change_added(document: dict[str, Any], chance: random.Random) -> None:
    """Tokens that are added: new ones, gone ones, other ids, texts and flags, another order."""
    there = document.get("added_tokens")
    listed: list[Any] = there if isinstance(there, list) else []
    document["added_tokens"] = listed
    model = document.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    texts = [*vocab][-20:] if isinstance(vocab, dict) else []
    text = chance.choice((*_TEXTS, "<x>", "<y>", "[PAD]", *texts))
    number = chance.choice((0, 1, 2, len(texts), 400, 401, 402, *NUMBERS))
    flags = {name: chance.random() < 0.2 for name in ("single_word", "lstrip", "rstrip")}
    entry = {"id": number, "content": text, **flags, "normalized": chance.random() < 0.5}
    entry["special"] = chance.random() < 0.5
    entries = [each for each in listed if isinstance(each, dict)]
    match chance.randrange(6):
        case 0 if listed:
            del listed[chance.randrange(len(listed))]
        case 1 if len(listed) > 1:
            chance.shuffle(listed)
        case 2 if entries:
            chance.choice(entries)["id"] = number
        case 3 if entries:
            chance.choice(entries)["content"] = text
        case 4 if entries:
            chance.choice(entries)[chance.choice([*flags, "special"])] = chance.random() < 0.5
        case _:
            listed.insert(chance.randrange(len(listed) + 1), entry)


def _change_model(document: dict[str, Any], chance: random.Random) -> None:
    """The vocabulary and the rules of its model; what is put before a text and after it."""
    model = document.get("model")
    if not isinstance(model, dict):
        return
    vocab, merges = model.get("vocab"), model.get("merges")
    match chance.randrange(8):
        case 0 | 1 if isinstance(vocab, dict) and vocab:
            vocab[chance.choice((*_TEXTS, *[*vocab][-20:]))] = chance.choice((0, 1, 2, 400, 401))
        case 2 if isinstance(vocab, dict) and vocab:
            one, other = (chance.choice([*vocab]) for _ in range(2))
            vocab[one], vocab[other] = vocab[other], vocab[one]
        case 0 | 1 | 2 if isinstance(vocab, list):
            vocab.insert(chance.randrange(len(vocab) + 1), [chance.choice(_TEXTS), -1.5])
        case 3 if isinstance(merges, list) and merges:
            chance.shuffle(merges)
        case 4 if isinstance(merges, list) and isinstance(vocab, dict) and vocab:
            one, other = (chance.choice([*vocab]) for _ in range(2))
            vocab.setdefault(one + other, len(vocab))
            merges.append(chance.choice((f"{one} {other}", [one, other])))
        case 5:
            model["byte_fallback"] = chance.random() < 0.5
        case 6:
            model["unk_token"] = chance.choice((*_TEXTS, None))
        case _:
            _change_ends(document, vocab, chance)


def _change_ends(document: dict[str, Any], vocab: object, chance: random.Random) -> None:
    """Which tokens stand before a text and after it, and how that is said."""
    text = chance.choice(("<s>", "</s>", "<x>"))
    token: dict[str, Any] = {"SpecialToken": {"id": text, "type_id": 0}}
    sequence: dict[str, Any] = {"Sequence": {"id": "A", "type_id": 0}}
    single = chance.choice(([sequence], [token, sequence], [sequence, token], [sequence, sequence]))
    number = vocab.get(text, 1) if isinstance(vocab, dict) else 1
    template = {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [token, sequence, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {text: {"id": text, "ids": [number], "tokens": [text]}},
    }
    bert = {"type": "BertProcessing", "sep": ["</s>", 2], "cls": [text, number]}
    roberta = {**bert, "type": "RobertaProcessing", "trim_offsets": True, "add_prefix_space": True}
    rule: Any = chance.choice((None, template, template, template, bert, roberta))
    if rule and chance.random() < 0.3:
        others = chance.choice(([], [{"type": "ByteLevel", "trim_offsets": True}]))
        for each in others:
            each |= {"add_prefix_space": True, "use_regex": True}
        rule = {"type": "Sequence", "processors": [*others, rule]}
    document["post_processor"] = rule

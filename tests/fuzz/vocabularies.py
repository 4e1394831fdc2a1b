"""Readers of tokenizers beside those that everybody uses: sentencepiece, tokenizers, and tiktoken's
format as it is defined.
"""

import base64
import importlib
import json
import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final

import regex

from tests.fuzz.differences import COMPARED, Differs, count, meant
from tests.fuzz.mutate_tokenizers import split_fields
from tests.support.paths import VECTORS
from weightsmith.errors import WeightsmithError
from weightsmith.formats.sentencepiece_model import (
    PieceType,
    SentencePieceModel,
    parse_sentencepiece_model,
)
from weightsmith.formats.tiktoken_ranks import parse_tiktoken
from weightsmith.repair.contents import first_tokens
from weightsmith.repair.detect import diagnose
from weightsmith.repair.folder import Folder, read_folder
from weightsmith.repair.tiktoken import PATTERN, tokenizer_files
from weightsmith.smoke.read_tokenizer import _joined

_CONFIG: Final = b'{"model_type": "llama"}'


def read_sentencepiece(raw: bytes) -> None:
    """Pieces, scores, types and special ids beside the library's; settings beside protobuf's."""
    import sentencepiece

    said: object = None
    try:
        theirs: Any = sentencepiece.SentencePieceProcessor(model_proto=raw)
    except (RuntimeError, UnicodeDecodeError) as error:  # the latter of its own words
        said = error
    try:
        ours = parse_sentencepiece_model(raw)
    except WeightsmithError as error:
        if said is None:
            meant("sentencepiece", "refused here", error)
        raise
    if said is not None:
        unread = {number for number, _, _ in split_fields(raw)} & {4, 5}
        if "ParseFromArray" in str(said) and not unread:
            raise Differs(f"protobuf does not read it: {said}")
        meant("sentencepiece", "taken here", said)
        return
    count(COMPARED)
    if len(ours.pieces) != theirs.vocab_size():
        raise Differs(f"{len(ours.pieces)} pieces, the library has {theirs.vocab_size()}")
    for number, piece in enumerate(ours.pieces):
        # Newer versions take the character 0 for a piece that is not used: we leave such models be.
        kept = PieceType.UNUSED if piece.text == "\0" else piece.type
        mine = (piece.text, _same_float(piece.score), kept)
        their = theirs.id_to_piece(number), _same_float(theirs.get_score(number))
        kind = next((each for each, ask in _KINDS.items() if getattr(theirs, ask)(number)), None)
        plain = {PieceType.NORMAL, PieceType.USER_DEFINED}
        if mine[:2] != their or (kept != kind and not (kind is None and kept in plain)):
            raise Differs(f"piece {number}: {mine}, the library has {(*their, kind)}")
    ids = {
        name: -1 if (number := getattr(ours, name)) is None else number
        for name in ("unk_id", "bos_id", "eos_id", "pad_id")
    }
    asked = {name: getattr(theirs, name)() for name in ids}
    # `unk_id` goes by a name in the settings; what is cut goes by the piece's type, as we do.
    asked["unk_id"] = theirs.piece_to_id("\ue000 no such piece")
    if ids != asked:
        raise Differs(f"{ids}, the library has {asked}")
    _hold_settings(ours, _proto(raw))


_KINDS: Final = {
    PieceType.UNKNOWN: "is_unknown",
    PieceType.CONTROL: "is_control",
    PieceType.UNUSED: "is_unused",
    PieceType.BYTE: "is_byte",
}
"""By type, what the library is asked for; of the other two it does not tell which it is."""


def _proto(raw: bytes) -> Any:
    """The message, by protobuf's own reader."""
    messages: Any = importlib.import_module("sentencepiece.sentencepiece_model_pb2")
    return messages.ModelProto.FromString(raw)


def _same_float(score: float) -> float | str:
    return "nan" if math.isnan(score) else score


def _hold_settings(ours: SentencePieceModel, proto: Any) -> None:
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    pairs = {
        "types": ([int(e.type) for e in ours.pieces], [e.type for e in proto.pieces]),
        "type": (int(ours.model_type), trainer.model_type),
        "bytes": (any(e.type is PieceType.BYTE for e in ours.pieces), trainer.byte_fallback),
        "suffix": (ours.whitespace_as_suffix, trainer.treat_whitespace_as_suffix),
        "prefix": (ours.add_dummy_prefix, normalizer.add_dummy_prefix),
        "extra": (ours.remove_extra_whitespaces, normalizer.remove_extra_whitespaces),
        "escape": (ours.escape_whitespaces, normalizer.escape_whitespaces),
        "charsmap": (ours.charsmap, normalizer.precompiled_charsmap),
    }
    for name, (mine, their) in pairs.items():
        if mine != their:
            raise Differs(f"{name}: {mine!r}, protobuf has {their!r}"[:500])


def read_tiktoken(raw: bytes) -> None:
    """Tokens by their ranks beside the format's definition, and the ``tokenizer.json`` that is made
    of them beside what tokenizers reads in it.
    """
    theirs, said = _defined(raw)
    try:
        ours = parse_tiktoken(raw, "tokenizer.model")
    except WeightsmithError as error:
        if theirs is not None:
            meant("tiktoken", "refused here", error)
        raise
    if theirs is None:
        meant("tiktoken", "taken here", said)
        return
    count(COMPARED)
    if dict(enumerate(ours)) != {rank: token for token, rank in theirs.items()}:
        raise Differs("other tokens than the format's definition has")
    _hold_rebuilt(ours)


def _defined(raw: bytes) -> tuple[dict[bytes, int] | None, object]:
    """Each line is a token in base64, and its rank; or why it is none.

    Source: openai/tiktoken, ``tiktoken/load.py``: lines that are empty are none.
    """
    found = {}
    try:
        for line in raw.splitlines():
            if line:
                token, rank = line.split()
                found[base64.b64decode(token)] = int(rank)
    except ValueError as error:
        return None, error
    return found, ""


def _hold_rebuilt(tokens: tuple[bytes, ...]) -> None:
    from tokenizers import Tokenizer, decoders

    special = ["<|begin_of_text|>", "<|end_of_text|>"]
    made = tokenizer_files(tokens, special, 100)["tokenizer.json"]
    tokenizer = Tokenizer.from_str(made.decode())
    decoder = decoders.ByteLevel()
    for number, token in enumerate(tokens):
        spelled = tokenizer.id_to_token(number)
        text = token.decode("utf-8", "replace")
        if spelled is None or decoder.decode([spelled]) != text:
            raise Differs(f"token {number}: {token!r}, tokenizers has {spelled!r}")
    if tokenizer.token_to_id(special[1]) != len(tokens) + 1:
        raise Differs("special tokens have other ids")
    ranks = {token: rank for rank, token in enumerate(tokens)}
    for part in (tokens[-9:], tokens[:-9:-1], tokens[97:100] * 3):
        text = b"".join(part).decode("utf-8", "replace")
        right = [rank for word in regex.findall(PATTERN, text) for rank in _by_rank(word, ranks)]
        if (ids := tokenizer.encode(text, add_special_tokens=False).ids) != right:
            raise Differs(f"{text!r}: {ids} by tokenizers, {right} by rank")


def _by_rank(word: str, ranks: dict[bytes, int]) -> list[int]:
    """A word's tokens: itself if it is one, else what comes of joining pairs by their rank."""
    whole = ranks.get(word.encode())
    return [ranks[each] for each in _joined(word, ranks)] if whole is None else [whole]


def read_tokenizer_json(raw: bytes) -> None:
    """Vocabulary, added tokens and what begins a text, beside the library."""
    from tokenizers import Tokenizer

    said: object = None
    try:
        theirs = Tokenizer.from_str(raw.decode())
        plain, whole = _cut(theirs)
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        said = error
    try:
        ours = read_folder({"tokenizer.json": raw, "config.json": _CONFIG})
    except WeightsmithError as error:
        if said is None:
            meant("tokenizers", "refused here", error)
        raise
    if said is not None:
        found = diagnose(ours.files, refused=str(said))
        if not found.unchecked and "tokenizer-json-refused" not in {e.id for e in found.faults}:
            raise Differs(f"tokenizers refuses it, and nothing is told: {said}")
        meant("tokenizers", "taken here", said)
        return
    count(COMPARED)
    _hold_tokenizer(ours, theirs)
    first = first_tokens(ours.parsed("tokenizer.json").get("post_processor"))
    if plain and whole[: len([*first, *plain])] != [*first, *plain]:
        raise Differs(f"{first} before a text, the library has {whole} of {plain}")


def _hold_tokenizer(ours: Folder, theirs: Any) -> None:
    """Raises: Differs, where the library has other tokens or ids."""
    vocab = theirs.get_vocab(with_added_tokens=False)
    if ours.vocab != vocab:
        other = dict(ours.vocab.items() ^ vocab.items())
        raise Differs(f"vocabulary: {[*other.items()][:4]} only in one")
    decoder = theirs.get_added_tokens_decoder()
    given = {text: theirs.token_to_id(text) for text in ours.json_given}
    if ours.json_given != given or {*given.values()} != decoder.keys():
        raise Differs(f"ids given: {ours.json_given}, by the library {given}, {decoder}"[:1000])
    if any(given[text] != number for text, number in ours.json_entries):
        if "added-token-ids" not in {fault.id for fault in diagnose(ours.files).faults}:
            raise Differs("other ids for added tokens, and nothing is told")
        count("added tokens shifted")
        return
    added = {
        number: (e.content, e.special, e.single_word, e.lstrip, e.rstrip)
        for number, e in decoder.items()
    }
    mine = {
        n: (e.text, e.special, e.single_word, e.lstrip, e.rstrip) for n, e in ours.added.items()
    }
    if mine != added:
        raise Differs(f"added tokens: {mine}, the library has {added}"[:1000])


def _cut(tokenizer: Any) -> tuple[list[str], list[str]]:
    """The tokens of a text, without those that are put before and after it, and with them."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    plain, whole = (tokenizer.encode("a", add_special_tokens=e).tokens for e in (False, True))
    return plain, whole


def tokenizer_json_seeds() -> Iterable[bytes]:
    """One of each kind of model, as small as it can be, and one as a family has it."""
    yield next(iter(sorted((VECTORS / "skew").glob("*/broken/tokenizer.json")))).read_bytes()
    yield from map(_seed, (_BPE, _LEVEL, _PIECE, _UNIGRAM))


@cache
def small_model() -> bytes:
    """A sentencepiece model of a handful of pieces, and the bytes."""
    made = _proto((VECTORS / "sp.model").read_bytes())
    kept = [each for n, each in enumerate(made.pieces) if n < 3 + 256 or n % 20 == 0]
    del made.pieces[:]
    made.pieces.extend(kept)
    raw: bytes = made.SerializeToString()
    return raw


def sentencepiece_seeds() -> Iterable[bytes]:
    """As LLaMA's; smaller; and without pieces for bytes, cut by another rule."""
    yield (VECTORS / "sp.model").read_bytes()
    yield small_model()
    made = _proto(small_model())
    kept = [each for each in made.pieces if each.type != PieceType.BYTE]
    del made.pieces[:]
    made.pieces.extend(kept)
    made.trainer_spec.byte_fallback = False
    yield made.SerializeToString()
    made.trainer_spec.model_type = 1
    yield made.SerializeToString()


def ranks_seed() -> bytes:
    """All bytes, and two tokens."""
    words = [*(bytes([each]) for each in range(256)), b"ab", b"abc"]
    return b"".join(base64.b64encode(word) + b" %d\n" % n for n, word in enumerate(words))


_TEXTS: Final = ("<unk>", "<s>", "</s>", "a", "b", "ab", "▁", "▁a")
_VOCAB: Final = {text: number for number, text in enumerate(_TEXTS)}
_BPE: Final[Mapping[str, Any]] = {
    "type": "BPE",
    "dropout": None,
    "unk_token": "<unk>",
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
    "vocab": _VOCAB,
    "merges": ["a b", "▁ a"],
}
_LEVEL: Final = {"type": "WordLevel", "vocab": _VOCAB, "unk_token": "<unk>"}
_PIECE: Final = {
    "type": "WordPiece",
    "unk_token": "<unk>",
    "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 100,
    "vocab": _VOCAB,
}
_UNIGRAM: Final = {
    "type": "Unigram",
    "unk_id": 0,
    "byte_fallback": False,
    "vocab": [[text, -1.0 - number] for number, text in enumerate(_TEXTS)],
}


def _seed(model: Mapping[str, Any]) -> bytes:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": number, "content": text, **flags, "special": special}
        for number, text, special in ((1, "<s>", True), (2, "</s>", True), (8, "<x>", False))
    ]
    begun = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    rest = {"Sequence": {"id": "A", "type_id": 0}}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": None,
        "decoder": None,
        "model": model,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begun, rest],
            "pair": [begun, rest],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
    }
    return json.dumps(document).encode()

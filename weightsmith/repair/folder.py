"""A folder's tokenizer and config files, read together."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from weightsmith.errors import DamagedInput
from weightsmith.formats.sentencepiece_model import (
    PieceType,
    SentencePieceModel,
    is_tiktoken,
    parse_sentencepiece_model,
)
from weightsmith.repair.contents import (
    ADDED,
    CONFIG,
    GENERATION,
    MODEL,
    READ,
    ROLES,
    TEMPLATE,
    TOKENIZER_JSON,
    Contents,
    as_list,
    entries,
    first_tokens,
    token_text,
)
from weightsmith.repair.faults import parse_object

_PAD_TEXTS: Final = ("[PAD]", "<pad>", "<PAD>")
"""Usual texts of pad tokens that were added."""


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is searched for in a text before the text is cut into pieces."""

    id: int
    text: str
    special: bool
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False


@dataclass(frozen=True)
class Folder(Contents):
    """The files read together: which tokens there are, and which role each has; `read_folder` makes
    one.
    """

    @cached_property
    def added_is_stale(self) -> bool:
        """Whether ``added_tokens.json`` contradicts ``tokenizer.json``, and readers go by it.

        transformers 5 saves all tokens in ``tokenizer.json`` and leaves an older file beside it.
        """
        if self.llama or TOKENIZER_JSON not in self.files or self.has_decoder:
            return False
        tokens = self.vocab | self.json_added
        return any(tokens.get(text) != number for text, number in self.parsed(ADDED).items())

    @property
    def begins_with_bos(self) -> bool:
        """Whether a text gets a BOS: as the settings say, else as ``tokenizer.json`` does it."""
        said = self.settings.get("add_bos_token")
        if said is not None:
            return bool(said)
        return self.adds_bos if TOKENIZER_JSON in self.files else True

    @cached_property
    def added(self) -> dict[int, AddedToken]:
        """Tokens beyond the pieces, by id, from all files that may name them."""
        first = len(self.model.pieces) if self.model else 0
        return {n: self._described[n] for n in sorted(self._described) if n >= first}

    @cached_property
    def _described(self) -> dict[int, AddedToken]:
        """Tokens by id as the JSON files describe them, pieces of the model's among them."""
        found: dict[int, AddedToken] = {}
        for entry in entries(self.parsed(TOKENIZER_JSON).get("added_tokens")):
            _keep(found, entry.get("id"), entry)
        listed = self.special_map.get("additional_special_tokens")
        mentioned = [*self.special_map.values(), *(listed if isinstance(listed, list) else ())]
        special = {"[PAD]", *map(token_text, mentioned)}
        for text, number in () if self.added_is_stale else self.parsed(ADDED).items():
            _keep(found, number, {"content": text, "special": text in special})
        decoder = self.settings.get("added_tokens_decoder")
        for text, entry in decoder.items() if isinstance(decoder, dict) else ():
            _keep(found, int(text) if text.isdecimal() else None, entry)
        return found

    @property
    def special_tokens(self) -> list[AddedToken]:
        """All tokens that are looked for in a text first: control pieces and added ones."""
        pieces = self.model.pieces if self.model else ()
        control = [
            AddedToken(number, piece.text, special=True)
            for number, piece in enumerate(pieces)
            if piece.type in {PieceType.UNKNOWN, PieceType.CONTROL}
        ]
        told = (self._described.get(token.id, token) for token in control)
        kept = [a if a.text == b.text else b for a, b in zip(told, control, strict=True)]
        return [*kept, *self.added.values()]

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Ids of all tokens by text: pieces, added tokens, and the pad token of the last row."""
        pieces = self.model.pieces if self.model else ()
        vocabulary = {piece.text: number for number, piece in enumerate(pieces)}
        for token in self.added.values():
            if token != self.idle_pad:
                vocabulary.setdefault(token.text, token.id)
        if self.unnamed_pad:
            vocabulary[self.unnamed_pad] = len(pieces)
        return vocabulary

    @cached_property
    def tokens(self) -> Mapping[str, int]:
        """Ids of all tokens by text, whatever kind of tokenizer this is; empty if unknown."""
        if self.model:
            return self.vocabulary
        found = self.vocab
        return found | {token.text: token.id for token in self.added.values()} if found else {}

    @cached_property
    def beyond_rows(self) -> dict[str, int]:
        """Tokens that the model has no row for, except a pad token that nothing needs."""
        rows, idle = self.rows, self.idle_pad
        return {
            text: number
            for text, number in self.tokens.items()
            if rows is not None and number >= rows and (idle is None or text != idle.text)
        }

    @property
    def tokens_lack_rows(self) -> bool:
        """Whether the tokenizer is another model's: some of its own tokens, not only added ones,
        lie beyond the last row.
        """
        return bool(self.beyond_rows.keys() - {token.text for token in self.added.values()})

    @property
    def adds_bos(self) -> bool:
        """Whether ``tokenizer.json`` begins every text with the BOS token."""
        bos = self.right_token("bos_token") or token_text(self.settings.get("bos_token"))
        return bos in first_tokens(self.parsed(TOKENIZER_JSON).get("post_processor"))

    @cached_property
    def idle_pad(self) -> AddedToken | None:
        """A pad token that was added without a row in the weights, and that nothing else uses."""
        rows = self.embedding_rows
        for token in self.added.values() if rows is not None else ():
            named = [token_text(s.get("pad_token")) for s in (self.settings, self.special_map)]
            is_pad = token.text in named or token.text in _PAD_TEXTS
            if rows is not None and token.id >= rows and is_pad and not self._uses(token):
                return token
        return None

    def _uses(self, token: AddedToken) -> bool:
        """Whether anything names a token otherwise than as the pad token."""
        for source in (self.settings, self.special_map):
            listed = source.get("additional_special_tokens")
            roles = [value for key, value in source.items() if key in ROLES]
            roles += listed if isinstance(listed, list) else []
            if token.text in map(token_text, roles) or token.text in str(source.get(TEMPLATE)):
                return True
        ids = [
            number
            for file in (CONFIG, GENERATION)
            for role in ("bos_token", "eos_token")
            for number in as_list(self.parsed(file).get(f"{role}_id"))
        ]
        return token.id in ids

    @cached_property
    def unnamed_pad(self) -> str | None:
        """Text of the pad token for which the model has a row and no file an id; None without one.

        The releases that added one row to the vocabulary did so for a pad token.
        """
        if not self.llama or self.rows != len(self.llama.pieces) + 1 or self.added:
            return None
        texts = {piece.text for piece in self.llama.pieces}
        said = [token_text(source.get("pad_token")) for source in (self.settings, self.special_map)]
        return next((text for text in said if text and text not in texts), "[PAD]")

    def right_token(self, role: str) -> str | None:
        """A special token's text: the files' one, if it can be right, else the model's."""
        for source in (self.settings, self.special_map):
            text = token_text(source.get(role))
            if text and self.may_be(role, text):
                return text
        if role == "pad_token":
            return self.unnamed_pad
        return self.piece_of(role)

    def right_id(self, role: str) -> int | None:
        """The id of `right_token`, where there is one."""
        text = self.right_token(role)
        return None if text is None else self.tokens.get(text)

    def may_be(self, role: str, text: str) -> bool:
        """Whether a token may have a role: it is in the vocabulary and has no other role there."""
        others = {self.piece_of(other) for other in ROLES if other != role}
        if role == "unk_token":
            return text == self.piece_of(role)
        return text in self.tokens and (role == "pad_token" or text not in others)

    def piece_of(self, role: str) -> str | None:
        """The piece that the sentencepiece model itself has for a role."""
        model = self.model
        if model is None:
            return None
        ids = {"bos_token": model.bos_id, "eos_token": model.eos_id, "unk_token": model.unk_id}
        number = ids[role]
        return None if number is None else model.pieces[number].text


def read_folder(
    files: Mapping[str, bytes],
    embedding_rows: int | None = None,
    names: Iterable[str] = (),
) -> Folder:
    """Read file contents together; `names` are the folder's other files, which are not read.

    Raises: JsonInvalid.
    """
    documents = {
        name: parse_object(files[name], name)
        for name in READ
        if name in files and name.endswith(".json")
    }
    raw = files.get(MODEL)
    model: SentencePieceModel | DamagedInput | None = None
    if raw is not None and not is_tiktoken(raw):  # Llama 3 keeps a tiktoken table under this name
        try:
            model = parse_sentencepiece_model(raw)
        except DamagedInput as error:
            model = error
    return Folder(files, documents, model, embedding_rows, frozenset((*names, *files)))


def _keep(found: dict[int, AddedToken], number: object, entry: object) -> None:
    """Add a token as a JSON file describes it; a file read later overrules earlier ones."""
    text = token_text(entry)
    if type(number) is not int or not isinstance(entry, dict) or not text:
        return
    flags = {name: bool(entry.get(name)) for name in ("single_word", "lstrip", "rstrip")}
    found[number] = AddedToken(number, text, special=bool(entry.get("special")), **flags)

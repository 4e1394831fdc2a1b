"""A folder's tokenizer and config files, read together."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Literal

from weightsmith.errors import DamagedInput
from weightsmith.formats.sentencepiece_model import (
    PieceType,
    SentencePieceModel,
    is_tiktoken,
    parse_sentencepiece_model,
)
from weightsmith.repair.faults import Edit, format_object, parse_object
from weightsmith.repair.llama import difference_from_llama

CONFIG: Final = "config.json"
GENERATION: Final = "generation_config.json"
SETTINGS: Final = "tokenizer_config.json"
SPECIAL_MAP: Final = "special_tokens_map.json"
ADDED: Final = "added_tokens.json"
TOKENIZER_JSON: Final = "tokenizer.json"
MODEL: Final = "tokenizer.model"
TEMPLATE_FILE: Final = "chat_template.jinja"
VOCAB: Final = "vocab.json"
MERGES: Final = "merges.txt"
TEKKEN: Final = "tekken.json"
READ: Final = (
    *(CONFIG, GENERATION, SETTINGS, SPECIAL_MAP, ADDED, TOKENIZER_JSON, MODEL),
    *(TEMPLATE_FILE, VOCAB, MERGES, TEKKEN),
)
"""All files that are looked at."""

ROLES: Final = ("bos_token", "eos_token", "unk_token")
"""The special tokens that every LLaMA tokenizer has; a pad token only some have."""

TEMPLATE: Final = "chat_template"

Reader = Literal["transformers-4", "transformers-5", "llama.cpp"]
"""For whom a folder can be made right, where one's cure is another's poison."""

_PAD_TEXTS: Final = ("[PAD]", "<pad>", "<PAD>")
"""What pad tokens are called by those who add one."""
_LLAMA_CLASSES: Final = ("llamatokenizer", "llamatokenizerfast")
_GENERIC_CLASSES: Final = ("pretrainedtokenizerfast", "tokenizersbackend")
"""Those that read all of ``tokenizer.json`` and ask no other file."""
_LLAMA_MODEL_TYPES: Final = ("llama", "llava", "mistral", "mixtral")
"""Whose vocabulary, where no tokenizer class is named, a sentencepiece model of LLaMA's kind is."""


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is looked for in a text before the text is cut into pieces."""

    id: int
    text: str
    special: bool
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False


@dataclass(frozen=True)
class Folder:
    """File contents by name, and what they say when read together; `read_folder` makes one."""

    files: Mapping[str, bytes]
    documents: Mapping[str, dict[str, Any]]
    """The JSON files among them, parsed; never changed in place."""
    sentencepiece: SentencePieceModel | DamagedInput | None
    """``tokenizer.model``, why it cannot be read, or None where there is none of this kind."""
    embedding_rows: int | None
    """Rows of the input embeddings, where the weights are at hand."""
    names: frozenset[str] = frozenset()
    """All files of the folder, also those that are not read."""
    exact_class: bool = False
    """Whether Llama's class is to make way for the one that reads all of ``tokenizer.json``."""
    reader: Reader | None = None
    """For whom it is to be right, where not for all: ``"transformers-4"``."""

    def parsed(self, file: str) -> dict[str, Any]:
        """A JSON file's object; empty where there is no such file."""
        return self.documents.get(file, {})

    def edited(self, edits: Iterable[Edit]) -> "Folder":
        """The folder with these edits made; a file that none of them changes keeps its bytes."""
        folder = self
        for edit in edits:
            if edit.delete:
                folder = folder.without(edit.file)
                continue
            if edit.content is not None:
                folder = replace(folder, files={**folder.files, edit.file: edit.content})
                continue
            document = edit.applied(folder.parsed(edit.file))
            if edit.file not in folder.files or document != folder.documents[edit.file]:
                folder = folder.with_document(edit.file, document)
        return folder

    def with_document(self, file: str, document: dict[str, Any]) -> "Folder":
        """The folder with one JSON file new or replaced."""
        files = {**self.files, file: format_object(document)}
        return replace(self, files=files, documents={**self.documents, file: document})

    def without(self, file: str) -> "Folder":
        """The folder without one file, whether it is there or not."""
        files = {name: raw for name, raw in self.files.items() if name != file}
        documents = {name: said for name, said in self.documents.items() if name != file}
        return replace(self, files=files, documents=documents)

    @property
    def config(self) -> dict[str, Any]:
        """``config.json``; empty where there is none."""
        return self.parsed(CONFIG)

    @property
    def settings(self) -> dict[str, Any]:
        """``tokenizer_config.json``; empty where there is none."""
        return self.parsed(SETTINGS)

    @property
    def special_map(self) -> dict[str, Any]:
        """``special_tokens_map.json``; empty where there is none."""
        return self.parsed(SPECIAL_MAP)

    @property
    def model(self) -> SentencePieceModel | None:
        """The sentencepiece model, where there is a sound one."""
        return self.sentencepiece if isinstance(self.sentencepiece, SentencePieceModel) else None

    @property
    def model_error(self) -> DamagedInput | None:
        """Why ``tokenizer.model`` cannot be read, where that is so."""
        return self.sentencepiece if isinstance(self.sentencepiece, DamagedInput) else None

    @cached_property
    def says_llama(self) -> bool:
        """Whether class or config claim a LLaMA tokenizer, in whatever spelling."""
        named = self.settings.get("tokenizer_class")
        if isinstance(named, str) and named:
            generic = named.casefold() in _GENERIC_CLASSES
            return self._is_the_model_s if generic else named.casefold() in _LLAMA_CLASSES
        return self.config.get("model_type", "llama") in _LLAMA_MODEL_TYPES

    @cached_property
    def _is_the_model_s(self) -> bool:
        """Whether ``tokenizer.json`` has exactly the pieces of ``tokenizer.model``."""
        pieces = self.model.pieces if self.model else ()
        return bool(pieces) and self.vocab == {piece.text: n for n, piece in enumerate(pieces)}

    @cached_property
    def vocab(self) -> dict[str, int]:
        """Tokens of the model in ``tokenizer.json`` by text; empty where there are none."""
        model = self.parsed(TOKENIZER_JSON).get("model")
        vocab = model.get("vocab") if isinstance(model, dict) else None
        if isinstance(vocab, dict):
            return {text: number for text, number in vocab.items() if type(number) is int}
        if isinstance(vocab, list):  # of a unigram model: pairs of text and score
            pairs = [each for each in vocab if isinstance(each, list) and each]
            return {str(each[0]): number for number, each in enumerate(pairs)}
        return {}

    @cached_property
    def json_added(self) -> dict[str, int]:
        """Added tokens in ``tokenizer.json`` by text."""
        entries = _entries(self.parsed(TOKENIZER_JSON).get("added_tokens"))
        pairs = ((token_text(entry), entry.get("id")) for entry in entries)
        return {text: number for text, number in pairs if text and type(number) is int}

    @property
    def tokenizer_class(self) -> str | None:
        """The class that the folder names, as transformers 5 calls it: without "Fast"."""
        for source in (self.settings, self.config):
            named = source.get("tokenizer_class")
            if isinstance(named, str) and named:
                generic = named.casefold() in _GENERIC_CLASSES
                return named if generic else named.removesuffix("Fast")
        return None

    @property
    def model_type(self) -> str | None:
        """The architecture by the config."""
        said = self.config.get("model_type")
        return said if isinstance(said, str) else None

    @property
    def is_generic(self) -> bool:
        """Whether the folder names the class that asks ``tokenizer.json`` alone."""
        return (self.tokenizer_class or "").casefold() in _GENERIC_CLASSES

    @property
    def is_llama_class(self) -> bool:
        """Whether the folder names Llama's class."""
        return self.tokenizer_class == "LlamaTokenizer"

    @cached_property
    def added_is_stale(self) -> bool:
        """Whether ``added_tokens.json`` contradicts ``tokenizer.json``, and nothing overrules it.

        transformers 5 saves all tokens in ``tokenizer.json`` and leaves an older file beside it.
        """
        if self.llama or TOKENIZER_JSON not in self.files or self._has_decoder:
            return False
        tokens = self.vocab | self.json_added
        return any(tokens.get(text) != number for text, number in self.parsed(ADDED).items())

    @property
    def _has_decoder(self) -> bool:
        return isinstance(self.settings.get("added_tokens_decoder"), dict)

    @cached_property
    def llama(self) -> SentencePieceModel | None:
        """The sentencepiece model, if it is the truth about a LLaMA tokenizer; else None."""
        return self.sound if self.says_llama else None

    @cached_property
    def sound(self) -> SentencePieceModel | None:
        """The sentencepiece model, if it is of LLaMA's kind, whoever says so."""
        model = self.model
        return model if model and not difference_from_llama(model) else None

    @property
    def begins_with_bos(self) -> bool:
        """Whether a text gets a BOS: as the settings say, else as ``tokenizer.json`` does it."""
        said = self.settings.get("add_bos_token")
        if said is not None:
            return bool(said)
        return self.adds_bos if TOKENIZER_JSON in self.files else True

    @property
    def rows(self) -> int | None:
        """Vocabulary rows of the model: by its weights, else by its config.

        A model of several modalities may say it of its text part only, or of both.
        """
        nested = self.config.get("text_config")
        places = (self.config, nested if isinstance(nested, dict) else {})
        said = [place["vocab_size"] for place in places if type(place.get("vocab_size")) is int]
        return self.embedding_rows or max(said, default=None)

    @cached_property
    def added(self) -> dict[int, AddedToken]:
        """Tokens beyond the pieces, by id, from all files that may name them."""
        first = len(self.model.pieces) if self.model else 0
        found: dict[int, AddedToken] = {}
        for entry in _entries(self.parsed(TOKENIZER_JSON).get("added_tokens")):
            _keep(found, entry.get("id"), entry)
        listed = self.special_map.get("additional_special_tokens")
        mentioned = [*self.special_map.values(), *(listed if isinstance(listed, list) else ())]
        special = {"[PAD]", *map(token_text, mentioned)}
        for text, number in () if self.added_is_stale else self.parsed(ADDED).items():
            _keep(found, number, {"content": text, "special": text in special})
        decoder = self.settings.get("added_tokens_decoder")
        for text, entry in decoder.items() if isinstance(decoder, dict) else ():
            _keep(found, int(text) if text.isdecimal() else None, entry)
        return {number: found[number] for number in sorted(found) if number >= first}

    @property
    def special_tokens(self) -> list[AddedToken]:
        """All tokens that are looked for in a text first: control pieces and added ones."""
        pieces = self.model.pieces if self.model else ()
        control = [
            AddedToken(number, piece.text, special=True)
            for number, piece in enumerate(pieces)
            if piece.type in {PieceType.UNKNOWN, PieceType.CONTROL}
        ]
        return [*control, *self.added.values()]

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
        """Tokens that the model has no row for, but for a pad token that nothing needs."""
        rows, idle = self.rows, self.idle_pad
        return {
            text: number
            for text, number in self.tokens.items()
            if rows is not None and number >= rows and (idle is None or text != idle.text)
        }

    @property
    def tokens_lack_rows(self) -> bool:
        """Whether the tokenizer is another model's: of its own tokens, not only of those that
        somebody added, some are beyond the last row.
        """
        return bool(self.beyond_rows.keys() - {token.text for token in self.added.values()})

    @property
    def template_file(self) -> str | None:
        """The chat template in a file of its own."""
        raw = self.files.get(TEMPLATE_FILE)
        return None if raw is None else raw.decode("utf-8", errors="replace")

    @property
    def adds_bos(self) -> bool:
        """Whether ``tokenizer.json`` begins every text with the BOS token."""
        bos = self.right_token("bos_token") or token_text(self.settings.get("bos_token"))
        rule = json.dumps(self.parsed(TOKENIZER_JSON).get("post_processor"))
        return bos is not None and json.dumps(bos) in rule

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
        """The pad token that the model has a row for and no file an id: its text, or None.

        The releases that grew the vocabulary by one row did it for a pad token.
        """
        if not self.llama or self.rows != len(self.llama.pieces) + 1 or self.added:
            return None
        texts = {piece.text for piece in self.llama.pieces}
        said = [token_text(source.get("pad_token")) for source in (self.settings, self.special_map)]
        return next((text for text in said if text and text not in texts), "[PAD]")

    def right_token(self, role: str) -> str | None:
        """A special token's text: as the files say if that can be, else as the model has it."""
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
    """Read file contents together; `names` are files that are there and not among them.

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


def as_list(value: object) -> list[Any]:
    """A value that may be one or several, as a list."""
    return value if isinstance(value, list) else [value]


def token_text(value: object) -> str | None:
    """A special token's text, from either form: a text, or an object with ``content``."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _entries(value: object) -> list[dict[str, Any]]:
    """The objects of a JSON list; nothing where it is no list."""
    entries = value if isinstance(value, list) else []
    return [entry for entry in entries if isinstance(entry, dict)]


def _keep(found: dict[int, AddedToken], number: object, entry: object) -> None:
    """Add a token as a JSON file describes it; files that are read later overrule earlier ones."""
    text = token_text(entry)
    if type(number) is not int or not isinstance(entry, dict) or not text:
        return
    flags = {name: bool(entry.get(name)) for name in ("single_word", "lstrip", "rstrip")}
    found[number] = AddedToken(number, text, special=bool(entry.get("special")), **flags)

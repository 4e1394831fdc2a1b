"""The tokenizer and config files of a folder, and what each of them says."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Literal, Self

from weightsmith.errors import DamagedInput
from weightsmith.formats.sentencepiece_model import SentencePieceModel
from weightsmith.repair.faults import Edit, format_object
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
"""Programs for one of which a folder can be made right, where no repair suits all of them."""

_LLAMA_CLASSES: Final = ("llamatokenizer", "llamatokenizerfast")
_GENERIC_CLASSES: Final = ("pretrainedtokenizerfast", "tokenizersbackend")
"""Classes that read all of ``tokenizer.json`` and no other file, in lower case."""
_LLAMA_MODEL_TYPES: Final = ("llama", "llava", "mistral", "mixtral")
"""Model types whose vocabulary is taken for LLaMA's kind if no tokenizer class is named."""


@dataclass(frozen=True)
class Contents:
    """File contents by name, and what each file says by itself."""

    files: Mapping[str, bytes]
    documents: Mapping[str, dict[str, Any]]
    """The JSON files among them, parsed; never changed in place."""
    sentencepiece: SentencePieceModel | DamagedInput | None
    """``tokenizer.model``; the error, if it cannot be read; None, if there is no such file."""
    embedding_rows: int | None
    """Rows of the input embeddings; None if the weights are not at hand."""
    names: frozenset[str] = frozenset()
    """All files of the folder, also those that are not read."""
    exact_class: bool = False
    """Whether Llama's class is to be replaced by the one that reads all of ``tokenizer.json``."""
    reader: Reader | None = None
    """The one program for which it is to be right, ``"transformers-4"``; None: for all."""
    refused: str | None = None
    """Why the tokenizers library does not read ``tokenizer.json``; None: it does, or was not asked.
    """

    def parsed(self, file: str) -> dict[str, Any]:
        """A JSON file's object; empty where there is no such file."""
        return self.documents.get(file, {})

    def edited(self, edits: Iterable[Edit]) -> Self:
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

    def with_document(self, file: str, document: dict[str, Any]) -> Self:
        """The folder with one JSON file new or replaced."""
        files = {**self.files, file: format_object(document)}
        return replace(self, files=files, documents={**self.documents, file: document})

    def without(self, file: str) -> Self:
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
        """The sentencepiece model; None if there is none that can be read."""
        return self.sentencepiece if isinstance(self.sentencepiece, SentencePieceModel) else None

    @property
    def model_error(self) -> DamagedInput | None:
        """Why ``tokenizer.model`` cannot be read; None if it can, or is not there."""
        return self.sentencepiece if isinstance(self.sentencepiece, DamagedInput) else None

    @cached_property
    def says_llama(self) -> bool:
        """Whether the tokenizer class or the config names LLaMA, in any spelling."""
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

    @property
    def unknown_kind(self) -> str:
        """What in ``tokenizer.json`` no known library writes; empty if all is known."""
        document = self.parsed(TOKENIZER_JSON)
        model = document.get("model")
        kind = model.get("type", "BPE") if isinstance(model, dict) else None
        if kind not in ("BPE", "WordPiece", "WordLevel", "Unigram"):  # it may be of any type
            return "no model" if kind is None else f"a model of type {kind}"
        version = document.get("version", "1.0")
        return "" if version == "1.0" else f"version {version}"

    @cached_property
    def json_added(self) -> dict[str, int]:
        """Added tokens in ``tokenizer.json`` by text."""
        return dict(self.json_entries)

    @cached_property
    def json_entries(self) -> list[tuple[str, int]]:
        """Texts and ids of the added tokens in ``tokenizer.json``, in their order there."""
        listed = entries(self.parsed(TOKENIZER_JSON).get("added_tokens"))
        pairs = ((token_text(entry), entry.get("id")) for entry in listed)
        return [(text, number) for text, number in pairs if text and type(number) is int]

    @cached_property
    def json_given(self) -> dict[str, int]:
        """The ids that the library gives to these tokens, whatever ids stand beside them.

        A token of the model's keeps its id there; each other one gets the next id after all others.
        Source: huggingface/tokenizers 0.23, ``AddedVocabulary::add_tokens``.
        """
        model = self.parsed(TOKENIZER_JSON).get("model")
        listed = model.get("vocab") if isinstance(model, dict) else None
        free = itertools.count(len(listed) if isinstance(listed, list) else len(self.vocab))
        given: dict[str, int] = {}
        for text, _ in self.json_entries:
            if text not in given:
                given[text] = self.vocab[text] if text in self.vocab else next(free)
        return given

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
        """Whether the folder names a class that reads ``tokenizer.json`` alone."""
        return (self.tokenizer_class or "").casefold() in _GENERIC_CLASSES

    @property
    def is_llama_class(self) -> bool:
        """Whether the folder names Llama's class."""
        return self.tokenizer_class == "LlamaTokenizer"

    @property
    def has_decoder(self) -> bool:
        """Whether the settings list all added tokens themselves."""
        return isinstance(self.settings.get("added_tokens_decoder"), dict)

    @cached_property
    def llama(self) -> SentencePieceModel | None:
        """The sentencepiece model, if a LLaMA tokenizer's right ids follow from it; else None."""
        return self.sound if self.says_llama else None

    @cached_property
    def sound(self) -> SentencePieceModel | None:
        """The sentencepiece model, if it is of LLaMA's kind, whatever the settings name."""
        model = self.model
        return model if model and not difference_from_llama(model) else None

    @property
    def rows(self) -> int | None:
        """Vocabulary rows of the model: by its weights, else by its config.

        A model of several modalities may have it at the config's top, in its text part, or in both.
        """
        nested = self.config.get("text_config")
        places = (self.config, nested if isinstance(nested, dict) else {})
        said = [place["vocab_size"] for place in places if type(place.get("vocab_size")) is int]
        return self.embedding_rows or max(said, default=None)

    @property
    def template_file(self) -> str | None:
        """The chat template, if it has a file of its own; else None."""
        raw = self.files.get(TEMPLATE_FILE)
        return None if raw is None else raw.decode("utf-8", errors="replace")


def as_list(value: object) -> list[Any]:
    """A value that may be a list, as a list."""
    return value if isinstance(value, list) else [value]


def token_text(value: object) -> str | None:
    """A special token's text, from either form: a text, or an object with ``content``."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def entries(value: object) -> list[dict[str, Any]]:
    """The objects of a JSON list; nothing where it is no list."""
    entries = value if isinstance(value, list) else []
    return [entry for entry in entries if isinstance(entry, dict)]


def first_tokens(rule: object) -> list[str]:
    """The special tokens that a post-processor of ``tokenizer.json`` puts before a text.

    Which kind it is the library tells by its keys; ``type`` may be missing.
    """
    match rule:
        case {"processors": list(inner)}:
            return [text for each in reversed(inner) for text in first_tokens(each)]
        case {"single": list(pieces), "special_tokens": dict(known)}:
            before = itertools.takewhile(lambda piece: "Sequence" not in piece, entries(pieces))
            named = [known.get(token_id(piece.get("SpecialToken"))) for piece in before]
            return [text for each in entries(named) for text in as_list(each.get("tokens"))]
        case {"cls": [str(text), *_]}:
            return [text]
    return []


def token_id(value: object) -> str:
    """What a piece of a template calls its token."""
    said = value.get("id") if isinstance(value, dict) else None
    return said if isinstance(said, str) else ""

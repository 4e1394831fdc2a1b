"""How a ``tokenizer.json`` prepares a text for its model, and what classes do instead."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from weightsmith.catalogue.tokenizer_classes import TokenizerClass, load_known_classes
from weightsmith.formats.sentencepiece_model import SPACE
from weightsmith.repair.contents import TOKENIZER_JSON
from weightsmith.repair.folder import Folder

GPT2_SPLIT: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What the pre-tokenizer ByteLevel splits by, unless it is told not to."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The parts of a ``tokenizer.json`` that decide on ids, in one spelling, to be compared."""

    normalizers: tuple[str, ...]
    steps: tuple[str, ...]


def pipeline(document: Mapping[str, Any]) -> Pipeline:
    """The pipeline of a ``tokenizer.json``."""
    normalizers = tuple(_spelled(each) for each in parts(document.get("normalizer")))
    steps = [step for each in parts(document.get("pre_tokenizer")) for step in _steps(each)]
    return Pipeline(normalizers, tuple(steps))


def parts(value: object) -> list[dict[str, Any]]:
    """The normalizers or pre-tokenizers of a sequence, however deep, or the only one."""
    if not isinstance(value, dict):
        return []
    if value.get("type") != "Sequence":
        return [value]
    listed = value.get("normalizers") or value.get("pretokenizers") or value.get("decoders")
    return [each for inner in (listed if isinstance(listed, list) else []) for each in parts(inner)]


def has_part(document: Mapping[str, Any], name: str) -> bool:
    """Whether a pre-tokenizer, normalizer or decoder is of this type."""
    keys = ("normalizer", "pre_tokenizer", "decoder")
    return any(each.get("type") == name for key in keys for each in parts(document.get(key)))


def effective_class(folder: Folder) -> str | None:
    """The class with which transformers 5 reads a folder; None: one that reads all of
    ``tokenizer.json``.

    Source: transformers 5.23.0, ``AutoTokenizer.from_pretrained``.
    """
    known = load_known_classes()
    model_type = folder.model_type
    named = folder.tokenizer_class
    registered = known.registered.get(model_type or "")
    if named is None:
        return registered if registered in known.classes else None
    if registered is not None and registered != named:
        specialized = registered not in {"TokenizersBackend", "PythonBackend"}
        if not specialized:
            return None
        if model_type in known.overruled:
            return registered
    return None if folder.is_generic else named


def class_of(folder: Folder) -> TokenizerClass | None:
    """What the catalogue knows of `effective_class`; None without one, or if it is not known."""
    name = effective_class(folder)
    return load_known_classes().classes.get(name) if name else None


def is_forced(folder: Folder) -> bool:
    """Whether the model type decides on the class, whatever the folder names."""
    known = load_known_classes()
    model_type = folder.model_type
    registered = known.registered.get(model_type or "")
    return model_type in known.overruled and registered != "TokenizersBackend"


def as_bytes_class(
    document: Mapping[str, Any], cls: TokenizerClass, folder: Folder
) -> dict[str, Any]:
    """A ``tokenizer.json`` of byte pairs as transformers 5 makes it with this class."""
    prefix = folder.settings.get("add_prefix_space")
    usual = {"type": "ByteLevel", "trim_offsets": True}
    spaced = cls.prefix_space if prefix is None else bool(prefix)
    last = {**usual, "add_prefix_space": spaced, "use_regex": not cls.split}
    steps: list[dict[str, Any]] = []
    if cls.digits:
        steps.append({"type": "Digits", "individual_digits": True})
    if cls.split:
        split = {"type": "Split", "pattern": {"Regex": cls.split}}
        steps.append({**split, "behavior": "Isolated", "invert": False})
    return {
        **document,
        "normalizer": {"type": cls.normalizer} if cls.normalizer else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*steps, last]},
    }


def as_llama_class(document: Mapping[str, Any], folder: Folder) -> dict[str, Any]:
    """A ``tokenizer.json`` as transformers 5 makes it with Llama's class."""
    spaced = folder.settings.get("add_prefix_space") is not False
    scheme = ("always" if folder.settings.get("legacy") else "first") if spaced else "never"
    rule = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": False}
    return {**document, "normalizer": None, "pre_tokenizer": rule}


def as_gemma_class(document: Mapping[str, Any]) -> dict[str, Any]:
    """A ``tokenizer.json`` as transformers 5 makes it with Gemma's class."""
    rule = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    return {**document, "normalizer": rule, "pre_tokenizer": None}


def begins_with_space(document: Mapping[str, Any]) -> bool:
    """Whether a sentencepiece kind of ``tokenizer.json`` puts a space before a text."""
    return has_part(document, "Prepend") or prepend_scheme(document) in {"always", "first"}


def spaces_as_they_are(document: Mapping[str, Any]) -> bool:
    """Whether such a ``tokenizer.json`` marks spaces, and puts none before a text."""
    rules = parts(document.get("normalizer"))
    marks = any(e.get("type") == "Replace" and e.get("content") == SPACE for e in rules)
    marks |= prepend_scheme(document) is not None
    return marks and not begins_with_space(document)


def prepend_scheme(document: Mapping[str, Any]) -> str | None:
    """Where Metaspace puts a space: always, first or never; None without one."""
    rules = [e for e in parts(document.get("pre_tokenizer")) if e.get("type") == "Metaspace"]
    said = rules[0].get("prepend_scheme", "always") if rules else None
    return said if isinstance(said, str) else None


def in_sequence_prefix(document: Mapping[str, Any]) -> bool | None:
    """``add_prefix_space`` of a ByteLevel that is one of several; None where it stands alone."""
    rule = document.get("pre_tokenizer")
    if not isinstance(rule, dict) or rule.get("type") != "Sequence":
        return None
    said = [each for each in parts(rule) if each.get("type") == "ByteLevel"]
    return bool(said[0].get("add_prefix_space", True)) if said and len(parts(rule)) > 1 else None


def with_bos(folder: Folder) -> dict[str, Any] | None:
    """The post-processor of ``tokenizer.json`` with BOS before a text; None without a BOS token."""
    bos = folder.right_token("bos_token")
    number = folder.right_id("bos_token")
    if bos is None or number is None:
        return None

    template = surrounding({bos: number}, {})
    said = folder.parsed(TOKENIZER_JSON).get("post_processor")
    listed = said.get("processors") if isinstance(said, dict) else None
    kept = listed if isinstance(listed, list) else [said]
    others = [e for e in kept if isinstance(e, dict) and e.get("type") != "TemplateProcessing"]
    return {"type": "Sequence", "processors": [*others, template]} if others else template


def surrounding(first: Mapping[str, int], last: Mapping[str, int]) -> dict[str, Any]:
    """The post-processor that puts special tokens, ids by text, before and after a text, or each of
    a pair.
    """

    def part(sequence: str, type_id: int) -> list[dict[str, Any]]:
        return [
            *({"SpecialToken": {"id": text, "type_id": type_id}} for text in first),
            {"Sequence": {"id": sequence, "type_id": type_id}},
            *({"SpecialToken": {"id": text, "type_id": type_id}} for text in last),
        ]

    return {
        "type": "TemplateProcessing",
        "single": part("A", 0),
        "pair": [*part("A", 0), *part("B", 1)],
        "special_tokens": {
            text: {"id": text, "ids": [number], "tokens": [text]}
            for text, number in {**first, **last}.items()
        },
    }


def _steps(part: Mapping[str, Any]) -> Iterator[str]:
    match part:
        case {"type": "ByteLevel"}:
            if part.get("use_regex", True):
                yield f"split {GPT2_SPLIT}"
            yield "bytes"
        case {"type": "Split", "pattern": {"Regex": str(regex)}, "behavior": behavior} if (
            behavior,
            bool(part.get("invert")),
        ) in {("Isolated", False), ("Removed", True)}:
            yield f"split {regex}"
        case {"type": "Digits"} if part.get("individual_digits"):
            yield "digits"
        case _:
            yield _spelled(part)


def _spelled(part: Mapping[str, Any]) -> str:
    return json.dumps(part, sort_keys=True)

"""Detectors for a ``tokenizer.json`` that contradicts the settings or files beside it."""

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from weightsmith.catalogue.repairs import KnownRepair
from weightsmith.repair.contents import MERGES, SETTINGS, TEKKEN, TOKENIZER_JSON, VOCAB
from weightsmith.repair.faults import Edit, Fault
from weightsmith.repair.folder import Folder
from weightsmith.repair.pipeline import class_of, has_part, parts

_LOWER: Final = "do_lower_case"
_CHINESE: Final = "tokenize_chinese_chars"
_ACCENTS: Final = "strip_accents"
_BERT_RULES: Final[Mapping[str, tuple[str, bool | None]]] = {
    _LOWER: ("lowercase", True),
    _CHINESE: ("handle_chinese_chars", True),
    _ACCENTS: ("strip_accents", None),
}
"""Settings of BERT's classes: the normalizer's name for each, and the default.

Source: transformers 4.46.3 and 5.23.0, ``BertTokenizerFast``.
"""
_TEKKEN_TYPES: Final = ("mistral", "mistral3", "ministral", "ministral3", "pixtral", "voxtral")
_TEKKEN_ROWS: Final = range(130_000, 132_000)
_TEKKEN_SPLIT: Final = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The pattern by which Mistral's Tekken tokenizers cut a text.

Source: mistral-common 1.13.1, ``data/tekken_240911.json``.
"""


def bert_case(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """Settings of BERT's normalizer that contradict ``tokenizer.json``: the settings win.

    If nothing is set for accents, they are kept or lost as capitals are. Whether capitals are kept
    must agree with the vocabulary.
    """
    cls, document = class_of(folder), folder.parsed(TOKENIZER_JSON)
    rules = [e for e in parts(document.get("normalizer")) if e.get("type") == "BertNormalizer"]
    if cls is None or cls.kind != "words" or len(rules) != 1:
        return
    rule = rules[0]
    said = {key: folder.settings.get(key, usual) for key, (_, usual) in _BERT_RULES.items()}
    right = {key: rule.get(name, usual) for key, (name, usual) in _BERT_RULES.items()}
    differ = {key: right[key] for key in (_LOWER, _CHINESE) if bool(said[key]) != bool(right[key])}
    stripped = (each[_ACCENTS] for each in (said, right))
    if len({bool(right[_LOWER] if each is None else each) for each in stripped}) > 1:
        differ[_ACCENTS] = right[_ACCENTS]
    if not differ:
        return
    theirs = {name: said[key] for key, (name, _) in _BERT_RULES.items()}
    wrong = {**document, "normalizer": {**rule, **theirs}}
    evidence = " and ".join(_differs(key, said[key], value) for key, value in differ.items())
    plain = (text for text in folder.vocab if not text.startswith("["))
    if differ.get(_LOWER) and any(text != text.lower() for text in plain):
        evidence += ", and the vocabulary has capitals: it is not known which is right"
        yield Fault(known.id, SETTINGS, evidence, verdict="report", read_as=wrong)
    else:
        yield Fault(known.id, SETTINGS, evidence, (Edit(SETTINGS, differ),), read_as=wrong)


def prefix_space(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """``add_prefix_space`` contradicts ``tokenizer.json``: the setting wins."""
    rule = folder.parsed(TOKENIZER_JSON).get("pre_tokenizer")
    if not isinstance(rule, dict) or rule.get("type") != "ByteLevel" or folder.is_llama_class:
        return
    cls = class_of(folder)
    usual = cls is not None and cls.prefix_space
    said, right = folder.settings.get("add_prefix_space", usual), rule.get("add_prefix_space")
    if isinstance(right, bool) and bool(said) != right:
        wrong = {
            **folder.parsed(TOKENIZER_JSON),
            "pre_tokenizer": {**rule, "add_prefix_space": bool(said)},
        }
        evidence = _differs("add_prefix_space", bool(said), right)
        edit = Edit(SETTINGS, {"add_prefix_space": right})
        yield Fault(known.id, SETTINGS, evidence, (edit,), read_as=wrong)


def added_token_ids(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """Added tokens to which the library gives other ids than stand beside them."""
    given = folder.json_given
    shifted = [(text, number) for text, number in folder.json_entries if given[text] != number]
    if folder.vocab and shifted:
        text, number = shifted[0]
        evidence = f"{text} has the id {number} there, and is given {given[text]}"
        if len(shifted) > 1:
            evidence += f", as {len(shifted) - 1} more are given others"
        yield Fault(known.id, TOKENIZER_JSON, evidence, verdict=known.verdict)


def json_refused(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """A ``tokenizer.json`` that the library does not read, though all in it is of a known kind."""
    if folder.refused and not folder.llama and not folder.unknown_kind:
        evidence = f"tokenizers says: {folder.refused}"
        yield Fault(known.id, TOKENIZER_JSON, evidence, verdict=known.verdict)


def mistral_regex(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """A ``tokenizer.json`` that cuts a text otherwise than Mistral's own file says."""
    document = folder.parsed(TOKENIZER_JSON)
    splits = [e for e in parts(document.get("pre_tokenizer")) if e.get("type") == "Split"]
    if len(splits) != 1 or not has_part(document, "ByteLevel"):
        return
    said = splits[0].get("pattern")
    found = said.get("Regex") if isinstance(said, dict) else None
    told = folder.parsed(TEKKEN).get("config")
    right = told.get("pattern") if isinstance(told, dict) else None
    if isinstance(right, str) and found != right:
        rule = _replaced(document.get("pre_tokenizer"), right)
        truth = {**document, "pre_tokenizer": rule}
        edit = Edit(TOKENIZER_JSON, {"pre_tokenizer": rule})
        evidence = f"it does not cut a text by the rule of {TEKKEN}"
        yield Fault(known.id, TOKENIZER_JSON, evidence, (edit,), read_as=document, truth=truth)
    elif (
        right is None
        and folder.model_type in _TEKKEN_TYPES
        and folder.rows in _TEKKEN_ROWS
        and found != _TEKKEN_SPLIT
    ):
        evidence = (
            f"it does not cut a text by Mistral's rule, and there is no {TEKKEN} to take it from"
        )
        yield Fault(known.id, TOKENIZER_JSON, evidence, verdict="report")


def vocab_merges_stale(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """A ``vocab.json`` or ``merges.txt`` that does not match ``tokenizer.json``."""
    model = folder.parsed(TOKENIZER_JSON).get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        return
    if (
        VOCAB not in folder.files
        or MERGES not in folder.files
        or not has_part(folder.parsed(TOKENIZER_JSON), "ByteLevel")
    ):
        return
    theirs, ours = folder.parsed(VOCAB), folder.vocab
    added = folder.json_added
    stale = any(number != theirs.get(text, number) for text, number in ours.items())
    stale |= bool((ours.keys() ^ theirs.keys()) - added.keys())
    right = merge_texts(model)
    raw = folder.files[MERGES].decode("utf-8", errors="replace")
    said = [line for line in raw.splitlines() if line and not line.startswith("#version")]
    if not stale and said == right:
        return
    which = " and ".join([VOCAB] * stale + [MERGES] * (said != right))
    edits = []
    if stale:
        edits.append(Edit(VOCAB, ours, tuple(theirs.keys() - ours.keys())))
    if said != right:
        first = raw.splitlines()[:1]
        head = first if first and first[0].startswith("#version") else ["#version: 0.2"]
        edits.append(Edit(MERGES, content=("\n".join([*head, *right]) + "\n").encode()))
    wrong = {
        **folder.parsed(TOKENIZER_JSON),
        "model": {**model, "vocab": theirs, "merges": said},
    }
    evidence = f"{which} {'are' if ' and ' in which else 'is'} not what {TOKENIZER_JSON} holds"
    yield Fault(known.id, edits[0].file, evidence, tuple(edits), read_as=wrong)


def merges_pairs(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """Merges as pairs, which the first versions of tokenizers cannot read."""
    model = folder.parsed(TOKENIZER_JSON).get("model")
    merges = model.get("merges") if isinstance(model, dict) else None
    if not isinstance(model, dict) or not isinstance(merges, list) or not merges:
        return
    if not all(isinstance(each, list) and len(each) == 2 for each in merges):
        return
    if any(" " in str(part) for each in merges for part in each):
        return  # a token with a space in it can be written in a pair, and not in a text
    joined = {**model, "merges": [" ".join(map(str, each)) for each in merges]}
    edit = Edit(TOKENIZER_JSON, {"model": joined})
    evidence = "merges are pairs, which tokenizers before 0.20 does not read"
    yield Fault(known.id, TOKENIZER_JSON, evidence, (edit,), verdict=known.verdict)


def vocab_files_only(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """A ``vocab.json`` and ``merges.txt``, and no ``tokenizer.json``."""
    if {VOCAB, MERGES} <= folder.files.keys() and TOKENIZER_JSON not in folder.files:
        evidence = f"there is no {TOKENIZER_JSON}, only {VOCAB} and {MERGES}"
        yield Fault(known.id, VOCAB, evidence, verdict=known.verdict)


def merge_texts(model: dict[str, Any]) -> list[str]:
    """The merges of a BPE model as ``merges.txt`` spells them."""
    merges = model.get("merges")
    listed = merges if isinstance(merges, list) else []
    return [" ".join(map(str, e)) if isinstance(e, list) else str(e) for e in listed]


def _differs(key: str, said: object, right: object) -> str:
    """The evidence for a setting that contradicts ``tokenizer.json``."""
    return f"{key} is {json.dumps(said)}, {TOKENIZER_JSON} has it {json.dumps(right)}"


def _replaced(rule: Any, pattern: str) -> Any:
    """A pre-tokenizer with another pattern in its one Split."""
    raw = copy.deepcopy(rule)
    for each in parts(raw):
        if each.get("type") == "Split":
            each["pattern"] = {"Regex": pattern}
    return raw

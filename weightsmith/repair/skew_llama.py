"""Detectors for what is lost when transformers 5 saves a tokenizer of Llama's kind."""

from collections.abc import Iterator

from weightsmith.catalogue.repairs import KnownRepair
from weightsmith.repair.contents import SETTINGS, TOKENIZER_JSON
from weightsmith.repair.faults import Edit, Fault
from weightsmith.repair.folder import Folder
from weightsmith.repair.pipeline import (
    as_llama_class,
    effective_class,
    has_part,
    prepend_scheme,
    with_bos,
)
from weightsmith.repair.skew_class import BOS_QUESTION, generic_class
from weightsmith.repair.tokenizer_json import plain_settings, tokenizer_document


def legacy_dropped(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """No ``legacy``, and a ``tokenizer.json`` that puts a space before every stretch of text."""
    if folder.llama or effective_class(folder) != "LlamaTokenizer":
        return
    scheme, said = _scheme(folder), folder.settings.get("legacy")
    right = {"always": True, "first": False}.get(scheme or "")
    if right is None or bool(said) == right:
        return
    evidence = f"legacy is {'missing' if said is None else said}, {TOKENIZER_JSON} says {scheme!r}"
    wrong = as_llama_class(folder.parsed(TOKENIZER_JSON), folder)
    edit = Edit(SETTINGS, {"legacy": right})
    yield Fault(known.id, SETTINGS, evidence.lower(), (edit,), read_as=wrong)


def v5_save_beside_model(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """A ``tokenizer.json`` that transformers 5 saved beside an older ``tokenizer.model``."""
    if folder.llama and _scheme(folder) == "always":
        evidence = "text that begins with a space is not cut as tokenizer.model does"
        edits = tuple(plain_settings(folder))
        yield Fault(
            known.id,
            TOKENIZER_JSON,
            evidence,
            edits,
            rebuild=True,
            read_as=folder.parsed(TOKENIZER_JSON),
            truth=tokenizer_document(folder.edited(edits), folder.llama),
        )


def model_only_mistral(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """A Mistral tokenizer without ``tokenizer.json``.

    transformers 5 converts it without the space before the first word.
    """
    yield from _model_only(folder, known, mistral=True)


def model_only_llama(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """A LLaMA tokenizer without ``tokenizer.json``."""
    yield from _model_only(folder, known, mistral=False)


def bos_rule_lost(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """Llama's class, no ``add_bos_token``, and a ``tokenizer.json`` that adds no BOS.

    transformers 4 adds a BOS then, transformers 5 does not.
    """
    document = folder.parsed(TOKENIZER_JSON)
    if not folder.is_llama_class or not document or folder.adds_bos:
        return
    if has_part(document, "ByteLevel"):
        return  # `llama_class_bytelevel` asks the same question
    rule, said = with_bos(folder), folder.settings.get("add_bos_token")
    if said is not None or rule is None:
        if said and rule is not None and folder.llama:
            edit = Edit(TOKENIZER_JSON, {"post_processor": rule})
            evidence = f"add_bos_token is true, {TOKENIZER_JSON} adds none"
            truth = {**document, "post_processor": rule}
            yield Fault(known.id, TOKENIZER_JSON, evidence, (edit,), read_as=document, truth=truth)
        return
    evidence = f"add_bos_token is missing, {TOKENIZER_JSON} adds none"
    wrong = {**document, "post_processor": rule}
    saved_by_5 = "backend" in folder.settings
    if folder.reader == "transformers-4" and not saved_by_5:
        edits = (
            Edit(SETTINGS, {"add_bos_token": True}),
            Edit(TOKENIZER_JSON, {"post_processor": rule}),
        )
        yield Fault(known.id, SETTINGS, evidence, edits, read_as=document, truth=wrong)
    elif saved_by_5 or folder.reader is not None:
        edit = Edit(SETTINGS, {"add_bos_token": False})
        yield Fault(known.id, SETTINGS, evidence, (edit,), read_as=wrong)
    else:
        asks = f"{evidence}: {BOS_QUESTION}"
        yield Fault(known.id, SETTINGS, asks, verdict="report", read_as=wrong)


def prefix_space_forces_slow(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """``add_prefix_space`` is set, for which transformers 4 needs a missing ``tokenizer.model``."""
    said, document = folder.settings.get("add_prefix_space"), folder.parsed(TOKENIZER_JSON)
    if not folder.is_llama_class or said is None or folder.sentencepiece or not document:
        return
    if has_part(document, "ByteLevel"):
        return
    evidence = f"add_prefix_space is {str(said).lower()}, and there is no tokenizer.model"
    prepends = has_part(document, "Prepend") or _scheme(folder) in {"always", "first"}
    edit = Edit(SETTINGS, remove=("add_prefix_space",))
    if bool(said) != prepends or not said:
        plain = generic_class(folder)
        edit = Edit(SETTINGS, plain.set, ("add_prefix_space",))
    yield Fault(known.id, SETTINGS, evidence, (edit,))


def _model_only(folder: Folder, known: KnownRepair, *, mistral: bool) -> Iterator[Fault]:
    is_mistral = folder.model_type in {"mistral", "mixtral"}
    if folder.llama and TOKENIZER_JSON not in folder.files and is_mistral == mistral:
        edits = tuple(plain_settings(folder))
        yield Fault(known.id, TOKENIZER_JSON, "the file is missing", edits, rebuild=True)


def _scheme(folder: Folder) -> str | None:
    """Where Metaspace puts a space, in a ``tokenizer.json`` without a normalizer."""
    document = folder.parsed(TOKENIZER_JSON)
    return None if document.get("normalizer") else prepend_scheme(document)

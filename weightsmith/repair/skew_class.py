"""Detectors for tokenizer classes that overrule ``tokenizer.json``, or part of it."""

from collections.abc import Iterator
from typing import Any, Final

from weightsmith.catalogue.repairs import KnownRepair
from weightsmith.repair.contents import CONFIG, SETTINGS, TOKENIZER_JSON
from weightsmith.repair.faults import Edit, Fault
from weightsmith.repair.folder import Folder
from weightsmith.repair.pipeline import (
    as_bytes_class,
    as_gemma_class,
    as_llama_class,
    begins_with_space,
    class_of,
    effective_class,
    has_part,
    in_sequence_prefix,
    is_forced,
    pipeline,
    spaces_as_they_are,
    with_bos,
)

GENERIC: Final = "PreTrainedTokenizerFast"
"""The class that reads all of ``tokenizer.json``, by the name that transformers 4 and 5 know."""
_INPUTS: Final = ["input_ids", "attention_mask"]
_PAD_LEFT: Final = ("LlamaTokenizer", "CodeLlamaTokenizer")


def generic_class(folder: Folder) -> Edit:
    """The settings with which every version of transformers reads all of ``tokenizer.json``.

    With this class transformers 4 gives token types, which decoders refuse, unless the settings
    name the inputs. Llama's class pads on the left, and so must this one.
    """
    said: dict[str, Any] = {"tokenizer_class": GENERIC}
    if not _wants_token_types(folder):
        said["model_input_names"] = _INPUTS
    if folder.tokenizer_class in _PAD_LEFT and "padding_side" not in folder.settings:
        said["padding_side"] = "left"
    return Edit(SETTINGS, said)


def class_tokenizers_backend(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """A class name that only transformers 5 knows."""
    if folder.tokenizer_class == "TokenizersBackend" and TOKENIZER_JSON in folder.files:
        evidence = f"tokenizer_class is TokenizersBackend, it should be {GENERIC}"
        yield Fault(known.id, SETTINGS, evidence, (generic_class(folder),))


def token_type_ids(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """The generic class for a decoder, without ``model_input_names``."""
    if folder.settings.get("tokenizer_class") != GENERIC or not _is_decoder(folder):
        return
    if "model_input_names" not in folder.settings and not _wants_token_types(folder):
        evidence = f"{GENERIC} without model_input_names"
        yield Fault(known.id, SETTINGS, evidence, (Edit(SETTINGS, {"model_input_names": _INPUTS}),))


def llama_class_bytelevel(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """Llama's class named for a tokenizer of byte pairs.

    With this class transformers 4 puts a BOS before every text; the generic class does so only if
    ``tokenizer.json`` has that rule. Where these differ, the user has to say which is right.
    """
    document = folder.parsed(TOKENIZER_JSON)
    if not folder.is_llama_class or not has_part(document, "ByteLevel"):
        return
    wrong = as_llama_class(document, folder)
    evidence = "tokenizer_class is LlamaTokenizer, tokenizer.json cuts bytes"
    said = folder.settings.get("add_bos_token")
    if folder.adds_bos or said is False:
        yield Fault(known.id, SETTINGS, evidence, (generic_class(folder),), read_as=wrong)
        return
    rule = with_bos(folder) if said else None
    if rule is not None:
        edits = (generic_class(folder), Edit(TOKENIZER_JSON, {"post_processor": rule}))
        truth = {**document, "post_processor": rule}
        yield Fault(known.id, SETTINGS, evidence, edits, read_as=wrong, truth=truth)
    elif folder.reader is not None:
        edits = (generic_class(folder), Edit(SETTINGS, {"add_bos_token": False}))
        yield Fault(known.id, SETTINGS, evidence, edits, read_as=wrong)
    else:
        asks = f"{evidence}, and puts no BOS before a text, as transformers 4 does: {BOS_QUESTION}"
        yield Fault(known.id, SETTINGS, asks, verdict="report", read_as=wrong)


BOS_QUESTION: Final = (
    'say what is meant, "add_bos_token": true or false in tokenizer_config.json, or for whom'
)


def class_overrules_json(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """A class for which transformers 5 uses another pipeline than ``tokenizer.json`` has."""
    wrong = _overruled(folder)
    if wrong is not None and not is_forced(folder):
        named = effective_class(folder)
        evidence = f"{named} cuts a text otherwise than {TOKENIZER_JSON} says"
        yield Fault(known.id, SETTINGS, evidence, (generic_class(folder),), read_as=wrong)


def class_forced(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """The same, where the model type alone decides: no tokenizer file can change it."""
    wrong = _overruled(folder)
    if wrong is not None and is_forced(folder):
        model_type, named = folder.model_type, effective_class(folder)
        evidence = f"model_type {model_type} makes it {named}, whatever tokenizer_class says"
        yield Fault(known.id, CONFIG, evidence, verdict=known.verdict, read_as=wrong)


def leading_space_v5(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """Llama's class, and a ``tokenizer.json`` that puts a space before every stretch of text."""
    document = folder.parsed(TOKENIZER_JSON)
    prepends = has_part(document, "Prepend")
    prepends |= folder.llama is not None and not has_part(document, "Metaspace")  # once it is built
    cls = class_of(folder)
    if cls is not None and cls.kind == "spaces" and (prepends or folder.exact_class):
        named = effective_class(folder)
        evidence = f"with {named}, text that begins with a space is cut otherwise"
        wrong = as_llama_class(document, folder)
        edit = generic_class(folder)
        yield Fault(known.id, SETTINGS, evidence, (edit,), verdict=known.verdict, read_as=wrong)


def padding_side(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """Llama's class where transformers 5 takes the generic one, which pads on the other side."""
    left = folder.is_llama_class and effective_class(folder) is None
    if left and TOKENIZER_JSON in folder.files and "padding_side" not in folder.settings:
        evidence = "padding_side is not set: left for LlamaTokenizer, right for the generic class"
        edit = Edit(SETTINGS, {"padding_side": "left"})
        yield Fault(known.id, SETTINGS, evidence, (edit,), verdict=known.verdict)


def _overruled(folder: Folder) -> dict[str, Any] | None:
    """``tokenizer.json`` as the class makes it, if that differs from the folder's; else None.

    Only byte pairs, and sentencepiece's pairs under Llama's and Gemma's classes, are known well
    enough; where BERT's or a unigram class departs, it does so in many published folders that are
    in order.
    """
    cls, document = class_of(folder), folder.parsed(TOKENIZER_JSON)
    model = document.get("model")
    if cls is None or not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        return None
    said = pipeline(document)
    if cls.kind == "bytes":
        wrong = as_bytes_class(document, cls, folder)
        same_space = in_sequence_prefix(document) in {None, in_sequence_prefix(wrong)}
        return None if pipeline(wrong) == said and same_space else wrong
    bytewise = has_part(document, "ByteLevel")
    if cls.kind == "gemma":
        return as_gemma_class(document) if bytewise or begins_with_space(document) else None
    if bytewise or not said.normalizers + said.steps:
        return None
    if cls.kind == "spaces" and folder.settings.get("add_prefix_space") is not False:
        return as_llama_class(document, folder) if spaces_as_they_are(document) else None
    return None


def _is_decoder(folder: Folder) -> bool:
    named = folder.config.get("architectures")
    names = [each for each in (named if isinstance(named, list) else []) if isinstance(each, str)]
    return any(each.endswith(("ForCausalLM", "LMHeadModel")) for each in names)


def _wants_token_types(folder: Folder) -> bool:
    types = folder.config.get("type_vocab_size")
    said = folder.settings.get("model_input_names")
    listed = said if isinstance(said, list) else []
    return "token_type_ids" in listed or (isinstance(types, int) and types > 1)

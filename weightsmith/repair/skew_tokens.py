"""Detectors for settings, and older files beside them, that transformers 4 and 5 read apart."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from weightsmith.catalogue.repairs import KnownRepair
from weightsmith.catalogue.tokenizer_classes import load_known_classes
from weightsmith.repair.contents import (
    ADDED,
    CONFIG,
    GENERATION,
    SETTINGS,
    SPECIAL_MAP,
    TEMPLATE,
    TEMPLATE_FILE,
    TOKENIZER_JSON,
    as_list,
    token_text,
)
from weightsmith.repair.faults import Edit, Fault
from weightsmith.repair.folder import Folder

_EXTRA: Final = "extra_special_tokens"
_LISTED: Final = "additional_special_tokens"
_AUTO_MAP: Final = "auto_map"
_CHATML_END: Final = "<|im_end|>"
_ENDS_BY_EOS: Final = ("gemma",)
"""Model types that end an answer with EOS, whatever their chat template writes after it.

Source: huggingface/transformers#32110, ml-explore/mlx-swift-examples#89.
"""
_TURN_ENDS: Final = (
    *("<|eot_id|>", "<|eot|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<turn|>"),
    *("<|END_OF_TURN_TOKEN|>", "<|end_of_turn|>", "<|endofturn|>", "<|eom|>", "<|return|>"),
)
"""Tokens that end a turn in the chat templates of their families, and nothing else."""


def extra_tokens_list(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """``extra_special_tokens`` as a list, which transformers 4 takes for a table of names."""
    said = folder.settings.get(_EXTRA)
    if isinstance(said, list) and said:
        there = folder.settings.get(_LISTED)
        listed = there if isinstance(there, list) else []
        texts = {token_text(each) for each in listed}
        both = [*listed, *(each for each in said if token_text(each) not in texts)]
        evidence = f"{_EXTRA} is a list of {len(said)}, it should be {_LISTED}"
        yield Fault(known.id, SETTINGS, evidence, (Edit(SETTINGS, {_LISTED: both}, (_EXTRA,)),))


def extra_tokens_empty(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """``extra_special_tokens`` as an empty list."""
    if folder.settings.get(_EXTRA) == []:
        yield Fault(known.id, SETTINGS, f"{_EXTRA} is []", (Edit(SETTINGS, remove=(_EXTRA,)),))


def stale_special_map(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """A ``special_tokens_map.json`` that contradicts the settings and would overrule them."""
    if folder.llama or "added_tokens_decoder" in folder.settings:
        return
    if TOKENIZER_JSON not in folder.files or SETTINGS not in folder.files:
        return
    wrong = [
        f"{role} is {token_text(value)}, not {token_text(folder.settings[role])}"
        for role, value in folder.special_map.items()
        if token_text(value)
        and token_text(folder.settings.get(role))
        and token_text(value) != token_text(folder.settings[role])
    ]
    named = [*folder.special_map.values(), *as_list(folder.special_map.get(_LISTED))]
    texts = dict.fromkeys(filter(None, map(token_text, named)))
    wrong += [f"{text} is no token" for text in texts if text not in folder.tokens]
    if wrong and folder.tokens:
        yield Fault(known.id, SPECIAL_MAP, "; ".join(wrong), (Edit(SPECIAL_MAP, delete=True),))


def stale_added_tokens(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """An ``added_tokens.json`` that contradicts ``tokenizer.json`` and would add to it."""
    if folder.added_is_stale:
        tokens = folder.vocab | folder.json_added
        wrong = [
            f"{text} has the id {number}, in {TOKENIZER_JSON} {tokens.get(text, 'none')}"
            for text, number in folder.parsed(ADDED).items()
            if tokens.get(text) != number
        ]
        yield Fault(known.id, ADDED, "; ".join(wrong[:3]), (Edit(ADDED, delete=True),))


def template_only_in_file(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """A chat template in a file of its own, which older readers do not look for."""
    text = folder.template_file
    if text is not None and SETTINGS in folder.files and not folder.settings.get(TEMPLATE):
        if "chat_template.json" in folder.names:
            return
        evidence = f"no {TEMPLATE}, it is in {TEMPLATE_FILE} only"
        yield Fault(known.id, SETTINGS, evidence, (Edit(SETTINGS, {TEMPLATE: text}),))


def template_twice(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """Two chat templates that differ; the files do not tell which of them is meant."""
    text, said = folder.template_file, folder.settings.get(TEMPLATE)
    if isinstance(said, list):  # several, by name
        named = {each.get("name"): each.get("template") for each in said if isinstance(each, dict)}
        said = named.get("default")
    if text is not None and isinstance(said, str) and said.strip("\n") != text.strip("\n"):
        evidence = f"{TEMPLATE} and {TEMPLATE_FILE} differ: delete the one that is not meant"
        yield Fault(known.id, TEMPLATE_FILE, evidence, verdict=known.verdict)


def cleanup_spaces(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """A BPE tokenizer that drops spaces before punctuation when ids become text again."""
    model = folder.parsed(TOKENIZER_JSON).get("model")
    said = folder.settings.get("clean_up_tokenization_spaces")
    if said is True and isinstance(model, dict) and model.get("type", "BPE") == "BPE":
        evidence = 'clean_up_tokenization_spaces is true: " ," becomes ","'
        edit = Edit(SETTINGS, {"clean_up_tokenization_spaces": False})
        yield Fault(known.id, SETTINGS, evidence, (edit,), verdict=known.verdict)


def eos_lacks_turn_end(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """A chat template that ends a turn with a token at which generation does not stop.

    Base models with a template, as Qwen's are, are in order: they stop at the end of a document. A
    folder counts as one if its template ends turns with ChatML's token, the tokenizer's EOS is
    another, and the generation config does not turn sampling on. Source: QwenLM/Qwen3#927.
    """
    said = folder.settings.get(TEMPLATE)
    template = said if isinstance(said, str) else folder.template_file
    generation, config = folder.parsed(GENERATION), folder.config
    source = generation if "eos_token_id" in generation else config
    stops = [each for each in as_list(source.get("eos_token_id")) if isinstance(each, int)]
    if folder.tokens_lack_rows or not template or not stops:
        return
    if generation.get("do_sample") is False or folder.model_type in _ENDS_BY_EOS:
        return
    if re.search(r"\beos_token\b", template):
        return
    ends = [token.text for token in folder.special_tokens if _ends_content(token.text, template)]
    ends = ends or [text for text in _TURN_ENDS if text in template and text in folder.tokens]
    if ends == [_CHATML_END] and not generation.get("do_sample") and not _is_eos(folder, ends[0]):
        return
    number = folder.tokens.get(ends[0]) if len(ends) == 1 else None
    if number is not None and number not in stops:
        file = GENERATION if source is generation else CONFIG
        evidence = f"the chat template ends a turn with {ends[0]} ({number}), which stops nothing"
        edit = Edit(file, {"eos_token_id": [*stops, number]})
        yield Fault(known.id, file, evidence, (edit,))


def _is_eos(folder: Folder, text: str) -> bool:
    """Whether the tokenizer itself says that this token ends a text."""
    return token_text(folder.settings.get("eos_token")) == text


def _ends_content(text: str, template: str) -> bool:
    """Whether a template writes this right after what somebody said."""
    said = r"content(?:['\"]\])?(?:\s*\|\s*\w+)?"
    joined = r"\s*(?:[+~]\s*['\"]|-?\}\})"
    return re.search(rf"{said}{joined}(?:\s|\\n)*{re.escape(text)}", template) is not None


def auto_map_leftover(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """An ``auto_map`` that names missing code, for a model type that needs none."""
    model_type = folder.model_type
    if model_type not in load_known_classes().native:
        return
    for file in (CONFIG, SETTINGS):
        named = list(_code(folder.parsed(file).get(_AUTO_MAP)))
        modules = [name.rpartition(".")[0] for name in named]
        there = any("--" in name for name in named)
        there |= any(f"{module}.py" in folder.names for module in modules)
        if named and not there:
            evidence = f"auto_map names {modules[0]}.py, which is not there"
            yield Fault(known.id, file, evidence, (Edit(file, remove=(_AUTO_MAP,)),))


def _code(value: Any) -> Iterator[str]:
    """All classes that an ``auto_map`` names, however it nests them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _code(each)
    elif isinstance(value, list):
        for each in value:
            yield from _code(each)

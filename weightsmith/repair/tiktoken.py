"""Tokenizer files for Llama 3, from Meta's table of byte pairs."""

from collections.abc import Sequence
from typing import Any, Final

from weightsmith.repair.contents import SETTINGS, SPECIAL_MAP, TOKENIZER_JSON
from weightsmith.repair.faults import format_object
from weightsmith.repair.pipeline import surrounding
from weightsmith.repair.tokens import added_entry

BEGIN: Final = "<|begin_of_text|>"
END: Final = "<|end_of_text|>"
END_OF_MESSAGE: Final = "<|eom_id|>"
END_OF_TURN: Final = "<|eot_id|>"
_RESERVED: Final = "<|reserved_special_token_{}|>"
_SPECIAL_COUNT: Final = 256

PATTERN: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The pattern by which a text is cut before bytes are paired.

Source: meta-llama/llama3, ``llama/tokenizer.py``.
"""


def special_tokens(*, scaled_rope: bool) -> list[str]:
    """The 256 special tokens after the table; Llama 3.1 gave some reserved ones a name.

    Source: meta-llama/llama-models, ``llama3/tokenizer.py``; meta-llama/llama3.
    """
    names = {
        0: BEGIN,
        1: END,
        6: "<|start_header_id|>",
        7: "<|end_header_id|>",
        9: END_OF_TURN,
    }
    if scaled_rope:  # 3.1 and later
        names |= {4: "<|finetune_right_pad_id|>", 8: END_OF_MESSAGE, 10: "<|python_tag|>"}
    reserved = (_RESERVED.format(number) for number in range(_SPECIAL_COUNT))
    return [names.get(place) or next(reserved) for place in range(_SPECIAL_COUNT)]


def tokenizer_files(
    tokens: Sequence[bytes], special: Sequence[str], context: int
) -> dict[str, bytes]:
    """``tokenizer.json`` and its settings, by name.

    Every reader takes the whole tokenizer from ``tokenizer.json``. Meta's own file is left out,
    since beside the others readers take it for a sentencepiece model.
    """
    added = {len(tokens) + place: added_entry(text) for place, text in enumerate(special)}
    settings = {
        "added_tokens_decoder": {str(number): entry for number, entry in added.items()},
        "bos_token": BEGIN,
        "eos_token": END,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": context,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, **entry} for number, entry in added.items()],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": PATTERN},
                    "behavior": "Isolated",
                    "invert": False,
                },
                _byte_level(add_prefix_space=False, trim_offsets=True, use_regex=False),
            ],
        },
        "post_processor": {
            "type": "Sequence",
            "processors": [
                _byte_level(trim_offsets=False),
                surrounding({BEGIN: len(tokens)}, {}),
            ],
        },
        "decoder": _byte_level(),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {_spelled(token): number for number, token in enumerate(tokens)},
            "merges": _merges(tokens),
        },
    }
    return {
        TOKENIZER_JSON: format_object(document),
        SETTINGS: format_object(settings),
        SPECIAL_MAP: format_object({"bos_token": BEGIN, "eos_token": END}),
    }


def _merges(tokens: Sequence[bytes]) -> list[str]:
    """Every way to make a token of two others; tiktoken joins the pair whose token ranks first."""
    ranks = {token: rank for rank, token in enumerate(tokens)}
    merges: list[str] = []
    for token in tokens:
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [pair for pair in pairs if pair[0] in ranks and pair[1] in ranks]
        known.sort(key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        merges += (f"{_spelled(left)} {_spelled(right)}" for left, right in known)
    return merges


def _alphabet() -> dict[int, str]:
    """A visible character for every byte, as GPT-2 chose them."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (value for value in range(256) if value not in visible)
    return {value: chr(value) for value in visible} | {
        value: chr(256 + place) for place, value in enumerate(others)
    }


_ALPHABET: Final = _alphabet()


def _spelled(token: bytes) -> str:
    return "".join(map(_ALPHABET.__getitem__, token))


def _byte_level(**flags: bool) -> dict[str, Any]:
    usual = {"add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    return {"type": "ByteLevel", **usual, **flags}

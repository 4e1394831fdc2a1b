"""Real tokenizers in folders as they are published, and under settings that travel badly."""

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.support import real_files as real
from tests.support.real_folders import FOLDERS
from tests.support.tokenizer_folders import Files, document


def llama_3_as(tokenizer_class: str) -> Files:
    """Llama 3's tokenizer with a BOS rule, under another class."""
    files = FOLDERS["llama-3"]()
    bos = "<|begin_of_text|>"
    begin = {"SpecialToken": {"id": bos, "type_id": 0}}
    rule = {
        "type": "TemplateProcessing",
        "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {bos: {"id": bos, "ids": [128000], "tokens": [bos]}},
    }
    said = json.loads(files["tokenizer_config.json"]) | {"tokenizer_class": tokenizer_class}
    whole = json.loads(files["tokenizer.json"]) | {"post_processor": rule}
    return {
        **files,
        "tokenizer_config.json": document(said),
        "tokenizer.json": json.dumps(whole, ensure_ascii=False).encode(),
    }


def minilm(**normalizer: Any) -> Files:
    """all-MiniLM-L6-v2, its normalizer changed."""
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
    files = {name: raw for name, raw in real.minilm().items() if name in names}
    whole = json.loads(files["tokenizer.json"])
    whole["normalizer"] |= normalizer
    return {**files, "tokenizer.json": json.dumps(whole).encode()}


def _published(family: str, config: Mapping[str, Any], generation: Mapping[str, Any]) -> Files:
    settings = {"config.json": document(config)}
    if generation:
        settings["generation_config.json"] = document(generation)
    return {**real.tokenizer_of(family), **settings}


_SAMPLED: Final = {"do_sample": True}
_BF16: Final = {"torch_dtype": "bfloat16"}
_OTHERS: Final[Mapping[str, tuple[str, dict[str, Any], dict[str, Any]]]] = {
    "Llama 3.1": (
        "llama3_1",
        {"model_type": "llama", "vocab_size": 128256, "rope_theta": 500000.0, **_BF16},
        {"eos_token_id": [128001, 128008, 128009], **_SAMPLED},
    ),
    "Qwen 3": (
        "qwen3",
        {"model_type": "qwen3", "vocab_size": 151936, "rope_theta": 1000000, **_BF16},
        {"eos_token_id": [151645, 151643], **_SAMPLED},
    ),
    "Qwen 3, base": (
        "qwen3",
        {"model_type": "qwen3", "vocab_size": 151936, "rope_theta": 1000000, **_BF16},
        {"eos_token_id": 151643, "do_sample": False},
    ),
    "Gemma 3": (
        "gemma3",
        {"model_type": "gemma3_text", "vocab_size": 262208, **_BF16},
        {"eos_token_id": [1, 106], **_SAMPLED},
    ),
    "DeepSeek-V3": (
        "deepseek_v3",
        {"model_type": "deepseek_v3", "vocab_size": 129280, **_BF16},
        {"eos_token_id": 1, **_SAMPLED},
    ),
    "gpt-oss": (
        "gptoss",
        {"model_type": "gpt_oss", "vocab_size": 201088, **_BF16},
        {"eos_token_id": [200002, 199999, 200012], **_SAMPLED},
    ),
    "GPT-4o as GPT2Tokenizer": ("gpt4o", {"model_type": "gpt2", "vocab_size": 200064}, {}),
}
"""A tokenizer that a package carries; config and generation settings as far as they count."""

_NAMES: Final = {
    "llama-2": "Llama 2",
    "llama-3": "Llama 3, first release",
    "mistral": "Mistral 7B v0.1",
}

REAL: Final[Mapping[str, Callable[[], Files]]] = {
    **{
        _NAMES.get(name, f"Llama 1: {name}"): files
        for name, files in FOLDERS.items()
        if name != "chinese-llama"  # its pieces share a score, which no tokenizer.json can say
    },
    **{
        f"Llama 3 as {name}": functools.partial(llama_3_as, name)
        for name in ("GPT2Tokenizer", "Qwen2Tokenizer", "LlamaTokenizerFast", "TokenizersBackend")
    },
    "MiniLM": minilm,
    "MiniLM, cased": functools.partial(minilm, lowercase=False),
    **{name: functools.partial(_published, *of) for name, of in _OTHERS.items()},
}
GOOD: Final = (
    *("Llama 2", "Llama 3, first release", "Mistral 7B v0.1", "MiniLM", "Llama 3.1"),
    *("Qwen 3", "Qwen 3, base", "Gemma 3", "gpt-oss"),
)
"""As their families publish them: nothing to mend."""

"""Which files beside the weights belong to a model: an allow-list, by what they are for."""

import fnmatch
from typing import Final

CONFIG: Final = ("config.json", "generation_config.json")
VOCABULARY: Final = (
    "tokenizer.model",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model.v*",
    "tekken.json",
    "*.tiktoken",
)
"""Files that hold the vocabulary itself."""
TOKENIZER_SETTINGS: Final = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
)
"""Files that say how the vocabulary is used."""
CARD: Final = "README.md"
"""What the hub shows of a repository."""
OTHERS: Final = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "*.py",
    "README*",
    "LICENSE*",
    "LICENCE*",
    "USE_POLICY*",
    "NOTICE*",
)
TOKENIZER: Final = (*VOCABULARY, *TOKENIZER_SETTINGS)
SIDECARS: Final = (*CONFIG, *TOKENIZER, *OTHERS)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a file name is one of `patterns`; case counts."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def is_sidecar(name: str) -> bool:
    """Whether a file of this name belongs to a model beside its weights.

    A name that cannot be printed (control characters, an unknown encoding) is nobody's.
    """
    return name.isprintable() and matches(name, SIDECARS)

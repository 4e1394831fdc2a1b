"""Choose by their names which files beside the weights belong to a model."""

import fnmatch
import re
from pathlib import PurePosixPath
from typing import Final

from weightsmith.checkpoint.layout import ADAPTER_CONFIG, MANIFEST

CONFIG: Final = ("config.json", "generation_config.json")
_WELL_KNOWN: Final = (
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
VOCABULARY: Final = (*_WELL_KNOWN, "spm.model", "*.spm", "vocab.bpe", "bpe.codes")
"""Files that hold the vocabulary itself."""
CHAT_TEMPLATES: Final = ("chat_template.json", "chat_template.jinja")
TOKENIZER_SETTINGS: Final = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    *CHAT_TEMPLATES,
)
"""Files that say how the vocabulary is used."""
CARD: Final = "README.md"
"""The model card, which the hub shows on the repository's page."""
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
PUBLISHABLE: Final = (*CONFIG, *_WELL_KNOWN, *TOKENIZER_SETTINGS, *OTHERS)
"""What goes to the hub with a delta: files whose purpose is known. What else belongs to a model may
be copied to a disk, but who knows what is in it.
"""

LARGE_NBYTES: Final = 64_000_000
"""A larger file beside the weights is left, unless somebody asks for it."""

_KINDS: Final = (
    *("*.json", "*.yaml", "*.yml", "*.toml"),
    *("*.txt", "*.md", "*.csv", "*.tsv"),
    *("*.model", "tokenizer.model.v*", "*.tiktoken", "*.spm", "*.bpe", "*.codes", "*.vocab"),
    *("vocab", "merges", "*.jinja", "chat_template*", "*.py"),
    *("readme*", "*licen[sc]e*", "use_policy*", "notice*", "copying*"),
)
"""The kinds of files that a model consists of, in small letters: settings, text, vocabularies,
merges, sentencepiece and tiktoken models, templates, code, card and licence.
"""
_NOT_THE_MODELS: Final = (
    *("*.index.json", "*.index.*.json", MANIFEST, ADAPTER_CONFIG),
    *("optimizer*", "scheduler.*", "rng_state*", "training_args*", "trainer_state*"),
    *("trainer_log*", "train_log*", "*_results.*", "log.txt", "logs.txt", "*[-_.]log.txt"),
    *("zero_to_fp32.py", "*sha256*", "*sha1sums*", "*md5*"),
)
"""Of these kinds, and yet about other files or about the training: indexes and records of weight
files, the trainer's state and logs, checksums.
"""
_MODULE: Final = re.compile(r"(?:\w+_)?\d+_[A-Z]\w*")
"""A folder of sentence-transformers that holds one module of a model: ``1_Pooling``, ``2_Dense``,
``query_0_SparseStaticEmbedding``.
"""
_MODULE_WEIGHTS: Final = ("*.safetensors", "*.bin")
"""A module's own weights, which are no shard of the model's."""
_TEMPLATES: Final = "additional_chat_templates"
"""A folder of transformers."""


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a file name is one of `patterns`; case counts."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def is_sidecar(name: str) -> bool:
    """Whether a file belongs to a model beside its weights, by its path in the folder.

    A name that cannot be printed (control characters, an unknown encoding) is nobody's, and so is a
    hidden one.
    """
    *folders, last = PurePosixPath(name).parts
    if not name.isprintable() or last.startswith(".") or not all(map(is_sidecar_folder, folders)):
        return False
    lower = last.lower()
    if folders and folders[-1] != _TEMPLATES and matches(lower, _MODULE_WEIGHTS):
        return True
    return matches(lower, _KINDS) and not matches(lower, _NOT_THE_MODELS)


def is_sidecar_folder(name: str) -> bool:
    """Whether files of a subfolder of this name may belong to a model."""
    return name == _TEMPLATES or _MODULE.fullmatch(name) is not None


def may_be_pushed(name: str) -> bool:
    """Whether a sidecar goes to the hub with a delta."""
    return matches(name, PUBLISHABLE)

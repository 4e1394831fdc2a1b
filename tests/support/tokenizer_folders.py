"""Tokenizer folders in memory: broken in the ways of 2023, in order, and of other families."""

import io
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from weightsmith.repair.contents import READ
from weightsmith.repair.detect import diagnose, mend
from weightsmith.repair.proof import Answers

Files = dict[str, bytes]

GOOD_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
BLANK_TOKENS = dict.fromkeys(GOOD_TOKENS, "")
LLAMA_SETTINGS: dict[str, Any] = {
    "model_type": "bpe",
    "byte_fallback": True,
    "split_digits": True,
    "allow_whitespace_only_pieces": True,
    "remove_extra_whitespaces": False,
    "normalization_rule_name": "identity",
    "character_coverage": 0.9999,
    "hard_vocab_limit": False,
    "minloglevel": 2,
}
"""With which LLaMA's own sentencepiece model was trained."""

OLD_TABLE: dict[str, dict[str, Any] | None] = {
    "decapoda": {"tokenizer_class": "LLaMATokenizer", **BLANK_TOKENS},
    "class-renamed-only": {"tokenizer_class": "LlamaTokenizer", **BLANK_TOKENS},
    "tokens-mended-only": {"tokenizer_class": "LLaMATokenizer", **GOOD_TOKENS},
    "tokens-and-bos-mended-only": {
        "tokenizer_class": "LLaMATokenizer",
        "add_bos_token": True,
        **GOOD_TOKENS,
    },
    "no-bos-rule": {"tokenizer_class": "LlamaTokenizer", **GOOD_TOKENS},
    "no-bos-rule-fast": {"tokenizer_class": "LlamaTokenizerFast", **GOOD_TOKENS},
    "no-legacy-rule": {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        **GOOD_TOKENS,
    },
    "tokenizer-model-alone": None,
}
"""The tokenizer_config.json of old folders, of which transformers 5 makes what a test says."""


def document(value: object) -> bytes:
    """A JSON file's content."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode()


def read(folder: Path) -> Files:
    """The files of a folder that a diagnosis looks at."""
    return {name: (folder / name).read_bytes() for name in READ if (folder / name).exists()}


def write(folder: Path, files: Files) -> Path:
    """A folder with these files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
    return folder


def old_folder(row: str, model: bytes) -> Files:
    """A row of `OLD_TABLE` as files, with the config that such folders had."""
    files = {"tokenizer.model": model, "config.json": document({"model_type": "llama"})}
    settings = OLD_TABLE[row]
    return files if settings is None else {**files, "tokenizer_config.json": document(settings)}


def mended(files: Files, **facts: Any) -> Files:
    """The files after their repair."""
    return dict(mend(diagnose(files, **facts)).after.files)


def fault_ids(files: Files, **facts: Any) -> list[str]:
    """The ids of all faults found, in order."""
    return [fault.id for fault in diagnose(files, **facts).faults]


def changed(files: Files, name: str, change: Callable[[dict[str, Any]], object]) -> Files:
    """The files with one JSON document changed in place by `change`."""
    value = json.loads(files.get(name, b"{}"))
    change(value)
    return {**files, name: document(value)}


def trained(lines: Sequence[str], vocab_size: int, **settings: Any) -> bytes:
    """A sentencepiece model trained on the spot."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=vocab_size,
        **(LLAMA_SETTINGS | settings),
    )
    return model.getvalue()


def processor(model: bytes) -> Any:
    """sentencepiece itself."""
    return SentencePieceProcessor(model_proto=model)


_ASK = """
import json, sys
sys.modules["torch"] = None
import transformers
answers = {}
for folder, texts in json.load(sys.stdin).items():
    try:
        fast = "slow" not in sys.argv
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, use_fast=fast)
        ids = [tokenizer.encode(text) for text in texts]
        back = [tokenizer.decode(each, skip_special_tokens=True) for each in ids]
        answers[folder] = [ids, back]
    except (RecursionError, ValueError, TypeError) as error:
        answers[folder] = type(error).__name__
print(json.dumps([transformers.__version__, answers]))
"""


def ask_transformers(
    questions: dict[Path, list[str]], *, python: str = sys.executable, slow: bool = False
) -> dict[Path, Answers | str]:
    """What `AutoTokenizer` makes of texts, folder by folder, in one process; or an error's name."""
    done = subprocess.run(
        [python, "-c", _ASK, *(["slow"] if slow else [])],
        input=json.dumps({str(folder): texts for folder, texts in questions.items()}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    version, answers = json.loads(done.stdout.splitlines()[-1])
    return {
        Path(folder): answer if isinstance(answer, str) else Answers(version, *answer)
        for folder, answer in answers.items()
    }

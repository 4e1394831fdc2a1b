"""Real tokenizers under the settings that travel badly between versions of transformers."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.support import real_files as real
from tests.support.ask import Answer, ask_transformers, wrong
from tests.support.real_folders import FOLDERS, texts
from tests.support.tokenizer_folders import Files, document
from weightsmith.repair.detect import diagnose, mend

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

TEXTS = texts()


def llama_3(**settings: Any) -> Files:
    """Llama 3's tokenizer with a BOS rule, under other settings."""
    files = FOLDERS["llama-3"]()
    bos = "<|begin_of_text|>"
    begin = {"SpecialToken": {"id": bos, "type_id": 0}}
    rule = {
        "type": "TemplateProcessing",
        "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {bos: {"id": bos, "ids": [128000], "tokens": [bos]}},
    }
    said = json.loads(files["tokenizer_config.json"]) | settings
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


CASES = (
    "Llama-2, exact class",
    "Mistral v0.1",
    "Llama-3 as GPT2Tokenizer",
    "Llama-3 as Qwen2Tokenizer",
    "Llama-3 as LlamaTokenizerFast",
    "Llama-3 as TokenizersBackend",
    "MiniLM",
)


def files_of(case: str) -> Files:
    if case.startswith("Llama-3"):
        return llama_3(tokenizer_class=case.rsplit(maxsplit=1)[-1])
    makers = {"Llama-2": FOLDERS["llama-2"], "Mistral": FOLDERS["mistral"], "MiniLM": minilm}
    return next(make() for name, make in makers.items() if case.startswith(name))


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
    return folder


def right(files: Mapping[str, bytes]) -> list[list[int]]:
    """What tokenizers makes of the texts."""
    tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return [encoding.ids for encoding in tokenizer.encode_batch(TEXTS)]


def test_every_reader_reads_them_alike_once_they_are_mended(tmp_path: Path) -> None:
    before, after, truth = {}, {}, {}
    for case in CASES:
        files = files_of(case)
        found = diagnose(files, exact_class="exact" in case)
        mended = mend(found).after.files
        before[case] = write(tmp_path / "before" / case, files)
        after[case] = write(tmp_path / "after" / case, mended)
        truth[case] = right(mended)
    pythons = {"5.23": sys.executable, "4.46": real.python_with_transformers("4.46.3")}
    for version, python in pythons.items():
        first: dict[Path, Answer] = ask_transformers([*before.values()], TEXTS, python=python)
        then = ask_transformers([*after.values()], TEXTS, python=python)
        table = {
            c: (wrong(first[before[c]], truth[c]), wrong(then[after[c]], truth[c])) for c in CASES
        }
        print(version, *table.items(), sep="\n  ")
        assert {case: counts[1] for case, counts in table.items()} == dict.fromkeys(CASES, 0)


@pytest.mark.parametrize("case", ["Mistral v0.1", "MiniLM"])
def test_what_is_published_is_left_alone(case: str) -> None:
    found = diagnose(files_of(case))
    assert (found.faults, mend(found).changed) == ((), {})


def test_a_cased_normalizer_is_told() -> None:
    (fault,) = diagnose(minilm(lowercase=False)).faults
    assert fault.id == "bert-case"

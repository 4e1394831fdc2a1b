"""Ask any Python with transformers, or tiktoken, what it makes of texts with real folders."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

Answer = list[list[int]] | str
"""The ids of each text, or the name of the error."""

_TRANSFORMERS = """
import json, sys, warnings
warnings.simplefilter("ignore")
sys.modules["torch"] = None
import transformers
transformers.logging.set_verbosity_error()
asked, answers = json.load(sys.stdin), {}
for folder in asked["folders"]:
    try:
        fast = not asked["slow"]
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, use_fast=fast)
        answers[folder] = [tokenizer.encode(text) for text in asked["texts"]]
    except Exception as error:
        answers[folder] = type(error).__name__
print(json.dumps(answers))
"""
_TIKTOKEN = """
import base64, json, sys, tiktoken
asked = json.load(sys.stdin)
lines = open(asked["model"], "rb").read().splitlines()
ranks = {base64.b64decode(t): int(r) for t, r in (line.split() for line in lines if line)}
encoding = tiktoken.Encoding("x", pat_str=asked["pattern"], mergeable_ranks=ranks,
                             special_tokens=asked["special"])
print(json.dumps([encoding.encode(text, allowed_special="all") for text in asked["texts"]]))
"""


def ask_transformers(
    folders: Sequence[Path],
    texts: Sequence[str],
    *,
    python: str = sys.executable,
    slow: bool = False,
) -> dict[Path, Answer]:
    """What ``AutoTokenizer`` makes of texts, folder by folder, in one process."""
    asked = {"folders": list(map(str, folders)), "texts": list(texts), "slow": slow}
    answers: dict[str, Answer] = json.loads(_run(python, _TRANSFORMERS, asked))
    return {Path(folder): answer for folder, answer in answers.items()}


def ask_tiktoken(
    model: Path, pattern: str, special: Mapping[str, int], texts: Sequence[str], *, python: str
) -> list[list[int]]:
    """What tiktoken makes of texts with a table of byte pairs."""
    asked = {"model": str(model), "pattern": pattern, "special": special, "texts": texts}
    ids: list[list[int]] = json.loads(_run(python, _TIKTOKEN, asked))
    return ids


def wrong(answer: Answer, truth: Sequence[Sequence[int]]) -> int | str:
    """How many texts get other ids than they should; or the error's name."""
    if isinstance(answer, str):
        return answer
    return sum(ids != right for ids, right in zip(answer, truth, strict=True))


def _run(python: str, code: str, asked: object) -> str:
    done = subprocess.run(
        [python, "-c", code], input=json.dumps(asked), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]

"""Ask transformers, in a child process, what it makes of a tokenizer's files."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from weightsmith import fs
from weightsmith.errors import TokenizerUnproved
from weightsmith.repair.contents import CONFIG, GENERATION, SETTINGS
from weightsmith.repair.faults import format_object, parse_object
from weightsmith.repair.proof import Answers, is_installed
from weightsmith.smoke.allowed import safe_settings
from weightsmith.smoke.closed import closed_command, closed_environment

_SCRIPT: Final = Path(__file__).with_name("read_tokenizer.py")
LIMIT_S: Final = 120
"""For one question, of processor time as well; the largest tokenizers take a few seconds."""
_CONFIG_KEYS: Final = ("model_type",)
"""All that a tokenizer needs of ``config.json``: by it, transformers 5 chooses some classes.

What else stands there may name code to fetch and run: `auto_map`, kernels for attention and
experts, quantisation.
"""


def ask_transformers(
    files: Mapping[str, bytes],
    texts: Sequence[str],
    scratch: Path,
    *,
    python: str = sys.executable,
    slow: bool = False,
) -> Answers:
    """The ids that ``AutoTokenizer`` gives to `texts`, and these ids decoded again.

    It reads copies of `files` in the new directory `scratch`, of config and settings only what a
    tokenizer needs; nothing is fetched, and no module comes from there or the working directory.
    Raises: TokenizerUnproved, if transformers cannot load them.
    """
    scratch.mkdir()
    for name, raw in _needed(files).items():
        fs.write_scratch(scratch / name, raw)
    asked = {"folder": str(scratch), "slow": slow, "texts": list(texts)}
    (told,) = _ask("transformers", asked, python)
    return Answers(told["reader"], told["ids"], told["texts"])


def ask_tokenizers(
    documents: Sequence[Mapping[str, Any]], texts: Sequence[str]
) -> list[Answers | str]:
    """What the library tokenizers makes of texts by each ``tokenizer.json``, or its error's words.

    In a process of its own, which a time limit ends: a regular expression can go round for ever.
    Raises: TokenizerUnproved.
    """
    asked = {"documents": [json.dumps(each) for each in documents], "texts": list(texts)}
    told = _ask("tokenizers", asked, sys.executable)
    return [e if isinstance(e, str) else Answers(e["reader"], e["ids"], e["texts"]) for e in told]


def refusal(document: Mapping[str, Any]) -> str | None:
    """Why the library tokenizers does not read a ``tokenizer.json``, or cuts no text with it; None
    if it does, or is not installed.
    """
    if not is_installed("tokenizers"):
        return None
    try:
        (told,) = ask_tokenizers([document], ["a"])
    except TokenizerUnproved as error:  # it went round for ever, or the process died of it
        return error.values["reason"]
    return told if isinstance(told, str) else None


def ask_tekken(document: Mapping[str, Any], texts: Sequence[str]) -> Answers:
    """The ids that a ``tekken.json`` gives to texts, without special tokens before or after.

    Raises: TokenizerUnproved.
    """
    (told,) = _ask("tekken.json", {"tekken": document, "texts": list(texts)}, sys.executable)
    return Answers(told["reader"], told["ids"], told["texts"])


def _ask(reader: str, asked: Mapping[str, Any], python: str) -> list[Any]:
    """Raises: TokenizerUnproved."""
    try:
        done = run_reader(python, json.dumps({**asked, "limit_s": LIMIT_S}))
    except subprocess.TimeoutExpired as error:
        reason = f"it gave no answer in {LIMIT_S} s"
        raise TokenizerUnproved(reader=reader, reason=reason) from error
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"it ended with {done.returncode}"]
        raise TokenizerUnproved(reader=reader, reason=last[0])
    told: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def run_reader(python: str, asked: str) -> "subprocess.CompletedProcess[str]":
    """Run the script on a question, with nothing of the working directory in its way.

    Raises: subprocess.TimeoutExpired.
    """
    return subprocess.run(  # noqa: S603  (our own script)
        closed_command(str(_SCRIPT), python=python),
        input=asked,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=LIMIT_S,
        check=False,
        env=closed_environment(),
    )


def _needed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files with nothing in them but what a tokenizer is made of."""
    needed = {name: raw for name, raw in files.items() if name != GENERATION}
    for name, safe in ((CONFIG, _safe_config), (SETTINGS, safe_settings)):
        if name in needed:
            needed[name] = format_object(safe(parse_object(needed[name], name)))
    return needed


def _safe_config(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key in _CONFIG_KEYS}

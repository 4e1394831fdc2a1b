"""Ask transformers, in a child process, what it makes of a tokenizer's files."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from weightsmith.errors import TokenizerUnproved
from weightsmith.repair.faults import format_object, parse_object
from weightsmith.repair.folder import CONFIG, GENERATION, SETTINGS
from weightsmith.repair.proof import Answers
from weightsmith.smoke.allowed import safe_settings

_SCRIPT: Final = Path(__file__).with_name("read_tokenizer.py")
_LIMIT_S: Final = 300
_QUIET: Final = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
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
        (scratch / name).write_bytes(raw)
    reader = "transformers"
    command = [python, "-P", str(_SCRIPT), str(scratch), *(["slow"] if slow else [])]
    try:
        done = subprocess.run(  # noqa: S603  (our own script)
            command,
            input=json.dumps({"texts": list(texts), "limit_s": _LIMIT_S}),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=_LIMIT_S,
            check=False,
            env=os.environ | _QUIET,
        )
    except subprocess.TimeoutExpired as error:
        reason = f"it gave no answer in {_LIMIT_S} s"
        raise TokenizerUnproved(reader=reader, reason=reason) from error
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"it ended with {done.returncode}"]
        raise TokenizerUnproved(reader=reader, reason=last[0])
    answer = json.loads(done.stdout.splitlines()[-1])
    return Answers(answer["reader"], answer["ids"], answer["texts"])


def _needed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files with nothing in them but what a tokenizer is made of."""
    needed = {name: raw for name, raw in files.items() if name != GENERATION}
    for name, safe in ((CONFIG, _safe_config), (SETTINGS, safe_settings)):
        if name in needed:
            needed[name] = format_object(safe(parse_object(needed[name], name)))
    return needed


def _safe_config(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key in _CONFIG_KEYS}

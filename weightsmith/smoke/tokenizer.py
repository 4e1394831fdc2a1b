"""Ask transformers, in a child process, what it makes of a tokenizer folder."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from weightsmith.errors import TokenizerUnproved
from weightsmith.repair.proof import Answers

_SCRIPT: Final = Path(__file__).with_name("read_tokenizer.py")
_LIMIT_S: Final = 300
_QUIET: Final = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}


def ask_transformers(
    folder: Path, texts: Sequence[str], *, python: str = sys.executable, slow: bool = False
) -> Answers:
    """The ids that ``AutoTokenizer`` gives to `texts`, and these ids decoded again.

    Nothing in the folder is run, nothing is fetched, no module comes from the working directory.
    Raises: TokenizerUnproved, if transformers cannot load the folder.
    """
    reader = "transformers"
    command = [python, "-P", str(_SCRIPT), str(folder), *(["slow"] if slow else [])]
    try:
        done = subprocess.run(  # noqa: S603  (our own script)
            command,
            input=json.dumps(list(texts)),
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

"""What readers make of a folder, against the oracle of a case: ids, texts, special tokens, prompt.

The code runs in any Python with transformers 4.33 or later.
"""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

_ASK = """
import json, sys, warnings
warnings.simplefilter("ignore")
sys.modules["torch"] = None
import transformers
transformers.logging.set_verbosity_error()

def verdict(folder, told):
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    except Exception as error:
        return type(error).__name__
    bad = []
    wrong = sum(tokenizer.encode(text) != ids for text, ids in told["ids"])
    bad += [f"{wrong} of {len(told['ids'])} ids"] if wrong else []
    back = told.get("decoded", ())
    wrong = sum(tokenizer.decode(ids, skip_special_tokens=True) != text for ids, text in back)
    bad += [f"{wrong} of {len(back)} texts"] if wrong else []
    tokens = told["tokens"].items()
    bad += [key for key, want in tokens if want is not None and getattr(tokenizer, key) != want]
    if not set(told.get("special_ids", ())) <= set(tokenizer.all_special_ids):
        bad.append("special tokens")
    if told.get("chat"):
        messages, want = told["chat"]
        if not getattr(tokenizer, "chat_template", None):
            bad.append("no template")
        elif tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        ) != want:
            bad.append("another prompt")
    return ", ".join(bad) or "ok"

asked = json.load(sys.stdin)
print(json.dumps({folder: verdict(folder, told) for folder, told in asked.items()}))
"""


def by_transformers(folders: Mapping[Path, Mapping[str, Any]], python: str) -> dict[Path, str]:
    """``"ok"``, what is wrong, or an error's name, by folder; of those whose oracle has ids."""
    asked = {str(folder): told for folder, told in folders.items() if told.get("ids")}
    done = subprocess.run(
        [python, "-c", _ASK], input=json.dumps(asked), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return {Path(folder): answer for folder, answer in answers.items()}


def by_tokenizers(folder: Path, told: Mapping[str, Any]) -> str:
    """The same by ``tokenizer.json`` alone."""
    if not told.get("ids"):
        return ""
    if not (folder / "tokenizer.json").exists():
        return "no file"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ids, back = told["ids"], told.get("decoded", ())
    bad = []
    if wrong := sum(tokenizer.encode(text).ids != right for text, right in ids):
        bad.append(f"{wrong} of {len(ids)} ids")
    if wrong := sum(tokenizer.decode(each) != text for each, text in back):
        bad.append(f"{wrong} of {len(back)} texts")
    return ", ".join(bad) or "ok"


def by_config(folder: Path, told: Mapping[str, Any]) -> str:
    """Whether ``config.json`` says what every reader has to find there."""
    wanted = told.get("config_must_read", {})
    path = folder / "config.json"
    said = json.loads(path.read_bytes()) if path.exists() else {}
    read = {key: said.get("torch_dtype" if key == "dtype" else key) for key in wanted}
    wrong = [key for key, want in wanted.items() if read[key] != want]
    return ", ".join(wrong) or ("ok" if wanted else "")

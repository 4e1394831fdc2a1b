"""Run as a script: what a library makes of texts with a tokenizer, without torch.

The question comes as JSON on stdin, the answer goes as one JSON line to stdout. Nothing of
weightsmith is imported, so that any Python with the library can run it.
"""

import json
import sys
from typing import Any

_REFUSED = (
    *("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"),
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.startfile"),
)
"""What reading a tokenizer never needs: the network, and other programs."""


def main() -> None:
    """Answer for the folder that is named, or for each ``tokenizer.json`` that is given."""
    asked = json.load(sys.stdin)
    _end_by_itself(asked["limit_s"])
    # Without torch, as importing it takes seconds and a tokenizer needs none of it; without
    # kernels, which fetches native code.
    for package in ("torch", "kernels"):
        sys.modules[package] = None  # type: ignore[assignment]
    sys.addaudithook(_refuse)
    told = _transformers(asked) if "folder" in asked else _tokenizers(asked)
    sys.stdout.write("\n" + json.dumps(told) + "\n")


def _transformers(asked: Any) -> list[Any]:
    import transformers  # after torch is out of the way

    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
        asked["folder"],
        use_fast=not asked["slow"],
        trust_remote_code=False,
        local_files_only=True,
    )
    plain = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    ids = [tokenizer.encode(text) for text in asked["texts"]]
    texts = [tokenizer.decode(each, **plain) for each in ids]
    return [{"reader": f"transformers {transformers.__version__}", "ids": ids, "texts": texts}]


def _tokenizers(asked: Any) -> list[Any]:
    """For each document; its error's words where it cannot be read."""
    import tokenizers

    told: list[Any] = []
    for document in asked["documents"]:
        try:
            tokenizer = tokenizers.Tokenizer.from_str(document)
        except Exception as error:  # noqa: BLE001  (tokenizers raises nothing narrower)
            told.append(str(error))
            continue
        tokenizer.no_padding()  # which some files have baked in
        tokenizer.no_truncation()
        ids = [tokenizer.encode(text).ids for text in asked["texts"]]
        texts = [tokenizer.decode(each) for each in ids]
        told.append({"reader": "tokenizers", "ids": ids, "texts": texts})
    return told


def _end_by_itself(limit_s: int) -> None:
    """End even if whoever started us is killed, and a text makes a tokenizer go round for ever."""
    try:
        import resource
    except ImportError:  # Windows has none
        return
    resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s))


def _refuse(event: str, _: object) -> None:
    if event in _REFUSED:
        raise PermissionError(f"{event} is not for a tokenizer")


if __name__ == "__main__":
    main()

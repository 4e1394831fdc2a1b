"""Run as a script: what a library makes of texts with a tokenizer, without torch.

The question comes as JSON on stdin, the answer goes as one JSON line to stdout. Nothing of
weightsmith is imported, so that any Python with the library can run it.
"""

import base64
import importlib
import itertools
import json
import sys
from collections.abc import Callable
from typing import Any

NETWORK = (
    *("socket.bind", "socket.connect", "socket.getaddrinfo", "socket.gethostbyname"),
    *("socket.gethostbyaddr", "socket.sendmsg", "socket.sendto"),
)
"""What Python's audit hooks are told of before anything reaches for the network."""
_REFUSED = (
    *NETWORK,
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.startfile"),
)
"""What reading a tokenizer never needs: the network, and other programs."""


def main() -> None:
    """Answer for the folder that is named, for each ``tokenizer.json`` that is given, or for a
    ``tekken.json``.
    """
    asked = json.load(sys.stdin)
    _end_by_itself(asked["limit_s"])
    leave_out_packages()
    sys.addaudithook(_refuse)
    answer = next(answers for key, answers in _ANSWERS.items() if key in asked)
    told = answer(asked)
    sys.stdout.write("\n" + json.dumps(told) + "\n")


def leave_out_packages() -> None:
    """Do without torch, as importing it takes seconds and a tokenizer needs none of it, and without
    kernels, which fetches native code.
    """
    for package in ("torch", "kernels"):
        sys.modules[package] = None  # type: ignore[assignment]


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


def _tekken(asked: Any) -> list[Any]:
    """By Mistral's own file: cut by its pattern, then pairs of bytes joined by their rank."""
    regex: Any = importlib.import_module("regex")
    config, vocab = asked["tekken"]["config"], asked["tekken"]["vocab"]
    first = config["default_num_special_tokens"]
    ranks = {
        base64.b64decode(entry["token_bytes"]): entry["rank"]
        for entry in vocab[: config["default_vocab_size"] - first]
    }
    cut = regex.compile(config["pattern"])
    ids = [
        [first + ranks[token] for part in cut.findall(text) for token in _joined(part, ranks)]
        for text in asked["texts"]
    ]
    return [{"reader": "tekken.json", "ids": ids, "texts": asked["texts"]}]


def _joined(text: str, ranks: dict[bytes, int]) -> list[bytes]:
    """The tokens of a text: again and again the two neighbours joined that make the lowest rank."""
    tokens = [bytes([byte]) for byte in text.encode()]
    while True:
        pairs = [(ranks.get(a + b), n) for n, (a, b) in enumerate(itertools.pairwise(tokens))]
        known = [(rank, n) for rank, n in pairs if rank is not None]
        if not known:
            return tokens
        _, at = min(known)
        tokens[at : at + 2] = [tokens[at] + tokens[at + 1]]


_ANSWERS: dict[str, Callable[[Any], list[Any]]] = {
    "folder": _transformers,
    "documents": _tokenizers,
    "tekken": _tekken,
}
"""Who is asked, by what the question holds."""


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

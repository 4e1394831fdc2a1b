"""Run as a script: what transformers makes of texts with a folder's tokenizer, without torch.

The texts come as JSON on stdin, the answer goes as one JSON line to stdout. Nothing of weightsmith
is imported, so that any Python with transformers can run it.
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
    """Answer for the folder that the first argument names; ``slow``: by the slow tokenizer."""
    folder, *speed = sys.argv[1:]
    asked = json.load(sys.stdin)
    _end_by_itself(asked["limit_s"])
    # Without torch, as importing it takes seconds and a tokenizer needs none of it; without
    # kernels, which fetches native code.
    for package in ("torch", "kernels"):
        sys.modules[package] = None  # type: ignore[assignment]
    sys.addaudithook(_refuse)
    import transformers  # after these are out of the way

    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
        folder, use_fast="slow" not in speed, trust_remote_code=False, local_files_only=True
    )
    ids = [tokenizer.encode(text) for text in asked["texts"]]
    answer = {
        "reader": f"transformers {transformers.__version__}",
        "class": type(tokenizer).__name__,
        "ids": ids,
        "texts": [
            tokenizer.decode(each, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for each in ids
        ],
    }
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


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

"""Run as a script: what transformers makes of texts with a folder's tokenizer, without torch.

The texts come as a JSON list on stdin, the answer goes as one JSON line to stdout. Nothing of
weightsmith is imported, so that any Python with transformers can run it.
"""

import json
import sys
from typing import Any


def main() -> None:
    """Answer for the folder that the first argument names; ``slow``: by the slow tokenizer."""
    folder, *speed = sys.argv[1:]
    texts = json.load(sys.stdin)
    # Without it, as importing torch takes seconds and a tokenizer needs none of it.
    sys.modules["torch"] = None  # type: ignore[assignment]
    import transformers  # after torch is out of the way

    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
        folder, use_fast="slow" not in speed, trust_remote_code=False, local_files_only=True
    )
    ids = [tokenizer.encode(text) for text in texts]
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


if __name__ == "__main__":
    main()

"""Train the models that are verified: `python -m tests.ops.verify.freeze`, once `frozen/` is gone.

They are kept, and not trained anew for each run, because a processor that rounds otherwise ends
with a model that writes another text, or never ends one.
"""

import tempfile
from pathlib import Path

from tests.support import tiny

FROZEN = Path(__file__).parent / "frozen"


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = Path(scratch, "tokenizer.model")
        tiny.train_sentencepiece(tokenizer)
        model = tiny.train_llama(tokenizer, steps=100, layers=2)
        tiny.save_llama(model, FROZEN / "base", tokenizer)
        tiny.save_llama(tiny.finetune(model, tokenizer, steps=30), FROZEN / "tuned", tokenizer)


if __name__ == "__main__":
    main()

"""How well a model expects plain English."""

import math
from typing import Any, Final

TEXT: Final = (
    "Once upon a time there was a small fox who lived by the river. One day the fox found a golden"
    " key in the tall grass. The fox was very curious and showed the key to the farmer."
    ' "What a golden key!" said the farmer. They went to the old mill and found a red book under'
    " the bridge. The farmer was very happy and said that the fox was kind and clever. Then they"
    " all went home and slept well. From that day on they were good friends."
)
"""What perplexity is measured on: plain words in plain sentences, which every model of English,
even one of a few hundred thousand parameters, expects better than chance."""


def perplexity(model: Any, tokenizer: Any, device: str) -> float:
    """The exponential of the mean negative log-likelihood of a token of `TEXT`, in float32.

    A model that knows nothing has about its vocabulary size; infinite where a logit is no number.
    """
    import torch

    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"].to(device)
    logits = model(ids).logits[0, :-1].float()
    loss = float(torch.nn.functional.cross_entropy(logits, ids[0, 1:]))
    return math.exp(min(loss, 700.0)) if math.isfinite(loss) else math.inf

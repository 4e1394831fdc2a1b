"""Load a model with transformers, let it generate text, and measure what it does."""

import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from weightsmith.smoke.load import load, quiet, translated
from weightsmith.smoke.meta_order import reordered
from weightsmith.smoke.perplexity import TEXT, perplexity
from weightsmith.smoke.weights import Given

_MANY: Final = 8
"""A token that comes this often and alone is a loop; fewer can be an answer ("Yes.")."""


@dataclass(frozen=True, slots=True)
class Smoke:
    """What a model did."""

    device: str
    prompt: str
    """What it was given, with its family's words around the question."""
    text: str
    """What it wrote, special tokens left out."""
    tokens: tuple[int, ...]
    """Ids of what it wrote."""
    stopped: bool
    """Whether it ended by an EOS token before the limit."""
    first_id: int | None
    """First id of the encoded prompt."""
    bos_id: int | None
    finite: bool
    """Whether every logit was a finite number."""
    round_trip: bool
    """Whether the tokenizer gives the built-in text back from its ids."""
    perplexity: float
    """On the built-in text."""
    perplexity_reordered: float
    """With q and k taken to be in the order of Meta's files; infinite for models without them."""
    vocab_size: int
    load_s: float
    tokens_per_s: float
    peak_memory_nbytes: int
    """The most that its process has held in memory so far; 0 where the system does not say."""
    left: tuple[str, ...] = ()
    """Settings of its config that transformers was not given: they could name code."""

    @property
    def repeats(self) -> bool:
        """Whether it wrote one token, at least `_MANY` times, and nothing else."""
        return len(self.tokens) >= _MANY and len(set(self.tokens)) == 1


def generate(
    given: Given,
    *,
    question: str,
    prompt: str | None = None,
    device: str = "cpu",
    max_new_tokens: int = 32,
    low_cpu_mem: bool = False,
    on_text: Callable[[str], None] = lambda _: None,
) -> Smoke:
    """Let a model answer `question` greedily, and measure its perplexity.

    It is given `prompt`, else the question in the form of its tokenizer's chat template, else as it
    stands. Each piece of text goes to `on_text` as it comes.
    Memory: the model; with `low_cpu_mem` one tensor at a time.
    Raises: as `load`; ModelNotRunnable; OutOfMemory.
    """
    import torch

    started = time.monotonic()
    torch.set_num_threads(os.cpu_count() or 1)
    with quiet(), torch.inference_mode():
        loaded = load(given, device, low_cpu_mem=low_cpu_mem)
        model, tokenizer = loaded.model, loaded.tokenizer
        load_s = time.monotonic() - started
        with translated(given):
            asked, ids = _encoded(tokenizer, question, prompt)
            started = time.monotonic()
            written, finite = _continue(model, tokenizer, ids, device, max_new_tokens, on_text)
            elapsed_s = time.monotonic() - started
            expected = perplexity(model, tokenizer, device)
            with reordered(model) as possible:
                other = perplexity(model, tokenizer, device) if possible else math.inf
            again = tokenizer.decode(tokenizer(TEXT)["input_ids"], skip_special_tokens=True)
    return Smoke(
        device=device,
        prompt=asked,
        text=str(tokenizer.decode(written, skip_special_tokens=True)),
        tokens=tuple(written),
        stopped=len(written) < max_new_tokens,
        first_id=ids[0] if ids else None,
        bos_id=tokenizer.bos_token_id,
        finite=finite,
        round_trip=again.strip() == TEXT,
        perplexity=expected,
        perplexity_reordered=other,
        vocab_size=int(model.get_input_embeddings().weight.shape[0]),
        load_s=load_s,
        tokens_per_s=len(written) / elapsed_s if elapsed_s else math.inf,
        peak_memory_nbytes=_peak_memory(),
        left=given.left,
    )


def _encoded(tokenizer: Any, question: str, prompt: str | None) -> tuple[str, list[int]]:
    """The prompt as text and as ids; a chat template writes special tokens itself."""
    if prompt is None and getattr(tokenizer, "chat_template", None):
        turns = [{"role": "user", "content": question}]
        prompt = str(
            tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        )
        return prompt, tokenizer(prompt, add_special_tokens=False)["input_ids"]
    prompt = question if prompt is None else prompt
    return prompt, tokenizer(prompt)["input_ids"]


def _continue(
    model: Any,
    tokenizer: Any,
    ids: list[int],
    device: str,
    max_new_tokens: int,
    on_text: Callable[[str], None],
) -> tuple[list[int], bool]:
    """Greedy ids after the prompt, and whether all logits were finite."""
    import torch
    from transformers import TextStreamer

    class Listener(TextStreamer):
        """Hands finished words to `on_text`."""

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:  # noqa: ARG002
            on_text(text)

    given = torch.tensor([ids], device=device)
    made = model.generate(
        input_ids=given,
        attention_mask=torch.ones_like(given),
        do_sample=False,
        num_beams=1,
        temperature=None,
        top_p=None,
        top_k=None,
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id or 0,
        streamer=Listener(tokenizer, skip_prompt=True, skip_special_tokens=True),
        output_logits=True,
        return_dict_in_generate=True,
    )
    finite = all(bool(step.isfinite().all()) for step in made.logits)
    return [int(each) for each in made.sequences[0][len(ids) :]], finite


def _peak_memory() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

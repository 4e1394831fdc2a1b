"""Load a model with transformers, let it write, and look at what it does."""

import math
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from weightsmith.errors import ModelNotLoadable, NoCuda, OutOfMemory

Device = Literal["auto", "cpu", "cuda"]

TEXT: Final = (
    "Once upon a time there was a small fox who lived by the river. One day the fox found a golden"
    " key in the tall grass. The fox was very curious and showed the key to the farmer."
    ' "What a golden key!" said the farmer. They went to the old mill and found a red book under'
    " the bridge. The farmer was very happy and said that the fox was kind and clever. Then they"
    " all went home and slept well. From that day on they were good friends."
)
"""What perplexity is measured on: plain words in plain sentences, which every model of English,
even one of a few hundred thousand parameters, expects better than chance."""


@dataclass(frozen=True, slots=True)
class Smoke:
    """What a model did."""

    device: str
    prompt: str
    text: str
    """What it wrote, special tokens left out."""
    tokens: tuple[int, ...]
    """Ids of what it wrote."""
    stopped: bool
    """Whether it ended by an EOS token before the limit."""
    first_id: int
    """First id of the encoded prompt."""
    bos_id: int | None
    finite: bool
    """Whether every logit was a finite number."""
    round_trip: bool
    """Whether the tokenizer gives the prompt back from its ids."""
    perplexity: float
    """On `TEXT`."""
    vocab_size: int
    load_s: float
    tokens_per_s: float
    peak_memory_nbytes: int
    """The most that this process has held in memory so far."""

    @property
    def repeats(self) -> bool:
        """Whether it wrote one token over and over."""
        return len(self.tokens) >= _MANY and len(set(self.tokens)) == 1


_MANY: Final = 8
"""A token that comes this often and alone is a loop; fewer can be an answer ("Yes.")."""


def generate(
    directory: Path,
    *,
    prompt: str,
    device: Device = "auto",
    max_new_tokens: int = 32,
    low_cpu_mem: bool = False,
    on_text: Callable[[str], None] = lambda _: None,
) -> Smoke:
    """Let the model in `directory` continue `prompt` greedily, and measure its perplexity.

    Each piece of text goes to `on_text` as it comes. No code from the directory runs, nothing is
    fetched. Memory: the model; with `low_cpu_mem` about one layer, the rest read from disk as it is
    needed.
    Raises: NoCuda; ModelNotLoadable, if transformers cannot load the model or the tokenizer;
    OutOfMemory.
    """
    import torch

    where = _device(device)
    started = time.monotonic()
    offload: AbstractContextManager[str | None] = (
        tempfile.TemporaryDirectory() if low_cpu_mem else nullcontext()
    )
    with offload as folder, torch.inference_mode():
        try:
            tokenizer, model = _load(directory, where, folder)
            load_s = time.monotonic() - started
            encoded = tokenizer(prompt, return_tensors="pt").to(where)
            started = time.monotonic()
            ids, finite = _continue(model, tokenizer, encoded, max_new_tokens, on_text)
            elapsed_s = time.monotonic() - started
            perplexity = _perplexity(model, tokenizer, where)
        except (MemoryError, torch.cuda.OutOfMemoryError) as error:
            raise OutOfMemory(source=directory) from error
    prompt_ids = encoded["input_ids"][0].tolist()
    return Smoke(
        device=where,
        prompt=prompt,
        text=str(tokenizer.decode(ids, skip_special_tokens=True)),
        tokens=tuple(ids),
        stopped=len(ids) < max_new_tokens,
        first_id=prompt_ids[0],
        bos_id=tokenizer.bos_token_id,
        finite=finite,
        round_trip=tokenizer.decode(prompt_ids, skip_special_tokens=True).strip() == prompt.strip(),
        perplexity=perplexity,
        vocab_size=int(model.get_input_embeddings().weight.shape[0]),
        load_s=load_s,
        tokens_per_s=len(ids) / elapsed_s if elapsed_s else math.inf,
        peak_memory_nbytes=_peak_memory(),
    )


def _peak_memory() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _device(device: Device) -> str:
    """Raises: NoCuda."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise NoCuda
    return device


def _load(directory: Path, where: str, offload_folder: str | None) -> tuple[Any, Any]:
    """The tokenizer and the model (transformers' own types) in the dtype of its files.

    Raises: ModelNotLoadable.
    """
    import transformers

    library: Any = transformers
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()
    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    # accelerate keeps every layer on disk and brings each to the device for as long as it computes.
    placed: dict[str, Any] = (
        {"device_map": {"": "disk"}, "offload_folder": offload_folder} if offload_folder else {}
    )
    try:
        tokenizer = library.AutoTokenizer.from_pretrained(directory, **safe)
        model = library.AutoModelForCausalLM.from_pretrained(
            directory, dtype="auto", **safe, **placed
        )
    except MemoryError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, RecursionError) as error:
        raise ModelNotLoadable(source=directory, reason=str(error).splitlines()[0]) from error
    model.eval()
    return tokenizer, model if offload_folder else model.to(where)


def _continue(
    model: Any,
    tokenizer: Any,
    encoded: Any,
    max_new_tokens: int,
    on_text: Callable[[str], None],
) -> tuple[list[int], bool]:
    """Greedy ids after the prompt, and whether all logits were finite."""
    from transformers import TextStreamer

    class Listener(TextStreamer):
        """Hands finished words to `on_text`."""

        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:  # noqa: ARG002
            on_text(text)

    given = {key: encoded[key] for key in ("input_ids", "attention_mask") if key in encoded}
    made = model.generate(
        **given,
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
    ids = made.sequences[0][encoded["input_ids"].shape[1] :]
    return [int(each) for each in ids], finite


def _perplexity(model: Any, tokenizer: Any, where: str) -> float:
    """The exponential of the mean negative log-likelihood of a token of `TEXT`, in float32."""
    import torch

    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"].to(where)
    logits = model(ids).logits[0, :-1].float()
    loss = float(torch.nn.functional.cross_entropy(logits, ids[0, 1:]))
    return math.exp(min(loss, 700.0)) if math.isfinite(loss) else math.inf

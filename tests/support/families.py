"""Tiny models of many families: built by transformers, with random weights, stored in each form."""

import functools
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from tests.support.folders import load, write_model

VOCABULARY: Final = 300
"""Room for a tokenizer of bytes."""
_SIZES: Final[dict[str, Any]] = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
_FALCON: Final[dict[str, Any]] = {
    name: _SIZES[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")
}
_EXPERTS: Final[dict[str, Any]] = {"num_experts_per_tok": 2, "tie_word_embeddings": False}
FAMILIES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    # Multi-query attention, fused q, k and v, tied embeddings.
    "falcon": ("falcon", _FALCON),
    # Fused by groups of queries, biases, an output layer of its own.
    "falcon 40": (
        "falcon",
        {
            **_FALCON,
            "new_decoder_architecture": True,
            "num_kv_heads": 2,
            "bias": True,
            "tie_word_embeddings": False,
        },
    ),
    "mistral": ("mistral", _SIZES),
    # Biases on q, k and v, tied embeddings.
    "qwen2": ("qwen2", {**_SIZES, "tie_word_embeddings": True}),
    # Norms within attention, more rows than columns.
    "qwen3": ("qwen3", {**_SIZES, "head_dim": 16, "tie_word_embeddings": True}),
    # Transposed matrices, fused attention, tied embeddings, positions that are learned.
    "gpt2": ("gpt2", {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 512}),
    # Experts that files hold one by one, and transformers 5 in one tensor a layer.
    "mixtral": ("mixtral", {**_SIZES, **_EXPERTS, "num_local_experts": 3}),
    "qwen2 moe": (
        "qwen2_moe",
        {
            **_SIZES,
            **_EXPERTS,
            "num_experts": 3,
            "moe_intermediate_size": 40,
            "shared_expert_intermediate_size": 56,
        },
    ),
}
TIED: Final = ("falcon", "qwen2", "qwen3", "gpt2")
"""Those whose output layer is their input embedding."""
MIXTURES: Final = ("mixtral", "qwen2 moe")
FORMS: Final = ("whole", "shards", "bin", "bin shards")
"""How a folder holds a model; torch files name both of two tied matrices, as transformers 4 did."""
FORMED: Final = tuple(zip(FAMILIES, itertools.cycle(["bin shards", "whole", "shards", "bin"])))
"""Each family in one form, each form twice."""


def make(family: str, *, seed: int = 0) -> Any:
    """A model of random weights; norms and biases too, which begin as ones and zeros."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    model_type, settings = FAMILIES[family]
    torch.manual_seed(seed)
    auto: Any = AutoModelForCausalLM
    config: Any = CONFIG_MAPPING[model_type]
    tokens = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0}
    model = auto.from_config(config(**settings, **tokens))
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) * 0.05
    return model


@functools.cache
def stored(
    family: str, dtype: torch.dtype = torch.float16, *, seed: int = 0
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and the tensors that transformers writes for a model."""
    with tempfile.TemporaryDirectory() as scratch:
        make(family, seed=seed).to(dtype).save_pretrained(scratch)
        return json.loads(Path(scratch, "config.json").read_text()), load(Path(scratch))


def tuned(weights: dict[str, Tensor], *, seed: int = 1) -> dict[str, Tensor]:
    """The weights a little changed, as by a fine-tune."""
    torch.manual_seed(seed)
    return {
        name: (tensor.float() + torch.randn(tensor.shape) * 1e-3).to(tensor.dtype)
        for name, tensor in weights.items()
    }


def embedding_of(weights: dict[str, Tensor]) -> str:
    """The name of the input embedding."""
    ends = ("embed_tokens.weight", "word_embeddings.weight", "wte.weight")
    return next(name for name in weights if name.endswith(ends))


def write(folder: Path, family: str, weights: dict[str, Tensor], form: str = "whole") -> Path:
    """A folder with a family's config and these weights, in one of `FORMS`."""
    config = {**stored(family)[0], "dtype": str(weights[embedding_of(weights)].dtype)[6:]}
    suffix = "bin" if "bin" in form else "safetensors"
    if suffix == "bin" and family in TIED:
        name = embedding_of(weights)  # the two stand first, so that two shards share them out
        weights = {"lm_head.weight": weights[name], name: weights[name], **weights}
    shards = 2 if "shards" in form else 1
    return write_model(folder, weights, config=config, suffix=suffix, shards=shards)


def save(folder: Path, family: str, form: str = "whole", *, seed: int = 0) -> Path:
    """A folder with a random model in float16."""
    return write(folder, family, stored(family, seed=seed)[1], form)


def loaded(folder: Path) -> Any:
    """The model as transformers loads it, once it has found every tensor and no other."""
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    model, report = auto.from_pretrained(folder, dtype="auto", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def logits(model: Any) -> Tensor:
    """What a model says to a few tokens."""
    with torch.no_grad():
        found: Tensor = model(torch.arange(1, 13).reshape(1, 12)).logits
    return found


def byte_level(special: list[str]) -> Tokenizer:
    """A tokenizer trained on the spot, of the kind of GPT-2, Falcon, Llama 3 and Qwen."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the quick brown fox", "over the lazy dog"] * 5, trainer)
    return tokenizer

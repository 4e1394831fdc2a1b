"""Tiny models and random adapters made by peft, and what peft merges them to."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.engine.folders import bits, load

HIDDEN, INTERMEDIATE, VOCABULARY = 48, 80, 150


def make_llama(
    folder: Path, *, dtype: torch.dtype = torch.float32, seed: int = 0, **config: Any
) -> Path:
    """A LLaMA of one layer whose matrices have more rows than a block, and some an odd number."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "vocab_size": VOCABULARY,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return _save(LlamaForCausalLM, LlamaConfig(**(sizes | config)), folder, dtype, seed)


def make_gpt2(folder: Path, *, dtype: torch.dtype = torch.float32, seed: int = 0) -> Path:
    """A GPT-2, which stores its weights the other way round and ties its output layer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_embd=HIDDEN,
        n_layer=1,
        n_head=2,
        vocab_size=VOCABULARY,
        n_positions=32,
        bos_token_id=1,
        eos_token_id=2,
    )
    return _save(GPT2LMHeadModel, config, folder, dtype, seed)


def _save(kind: Any, config: Any, folder: Path, dtype: torch.dtype, seed: int) -> Path:
    torch.manual_seed(seed)
    model = kind(config)
    for parameter in model.parameters():  # norms and biases too, which begin as ones and zeros
        parameter.data += torch.randn_like(parameter) * 0.05
    model.to(dtype).save_pretrained(folder)
    return folder


def load_model(base: Path, **arguments: Any) -> Any:
    """The model as transformers loads it, in the dtype that it is stored in."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base, **arguments)


def make_adapter(
    folder: Path,
    base: Path,
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 1,
    as_bin: bool = False,
    save: dict[str, Any] | None = None,
    tokens: int | None = None,
    **config: Any,
) -> Path:
    """A random adapter for `base`, saved by peft, its own tensors then cast to `dtype`.

    `tokens` resizes the model's vocabulary before the adapter is made, as a training script does.
    """
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_model(base)
        if tokens:
            model.resize_token_embeddings(tokens, mean_resizing=False)
        settings: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
        peft = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **(settings | config)))
        torch.manual_seed(seed)
        for parameter in peft.parameters():
            if parameter.requires_grad:
                parameter.data += torch.randn_like(parameter) * 0.1
        peft.save_pretrained(str(folder), **(save or {}))
    path = folder / "adapter_model.safetensors"
    tensors = {
        name: tensor.to(dtype) if "lora_" in name else tensor
        for name, tensor in load_file(path).items()
    }
    write_adapter(folder, tensors, as_bin=as_bin)
    return folder


def write_adapter(folder: Path, tensors: dict[str, Tensor], *, as_bin: bool = False) -> None:
    """Replace an adapter's weight file."""
    path = folder / "adapter_model.safetensors"
    path.unlink(missing_ok=True)
    if as_bin:
        torch.save(tensors, folder / "adapter_model.bin")
    else:
        save_file(tensors, path, metadata={"format": "pt"})


def edit_config(adapter: Path, **settings: Any) -> None:
    """Change values of an ``adapter_config.json``."""
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def merged_by_peft(base: Path, adapters: Sequence[Path], *, tokens: int | None = None) -> Any:
    """The model that peft makes: each adapter loaded onto the result of the one before, merged."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_model(base)
        if tokens:
            model.resize_token_embeddings(tokens, mean_resizing=False)
        for adapter in adapters:
            model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return model


def differing(folder: Path, model: Any) -> list[str]:
    """Names of the folder's tensors that are not those of `model` bit for bit, or are missing."""
    ours, theirs = load(folder), model.state_dict()
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    return sorted((theirs.keys() ^ ours.keys()) - tied) + [
        name
        for name in sorted(ours.keys() & theirs.keys())
        if ours[name].dtype != theirs[name].dtype
        or not torch.equal(bits(ours[name]), bits(theirs[name]))
    ]

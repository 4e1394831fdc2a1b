"""Tiny models and random adapters made by peft, and what peft merges them to."""

import json
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.support.folders import bits, load

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


def make_gpt2(folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
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
    return _save(GPT2LMHeadModel, config, folder, dtype)


def _save(kind: Any, config: Any, folder: Path, dtype: torch.dtype, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    model = kind(config)
    for parameter in model.parameters():  # norms and biases too, which begin as ones and zeros
        parameter.data += torch.randn_like(parameter) * 0.05
    model.to(dtype).save_pretrained(folder)
    return folder


def make_falcon(folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """A Falcon, whose queries, keys and values are one matrix, with biases and tied embeddings."""
    from transformers import FalconConfig, FalconForCausalLM

    config = FalconConfig(
        hidden_size=HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=4,
        vocab_size=VOCABULARY,
        bias=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    return _save(FalconForCausalLM, config, folder, dtype)


def make_mixtral(folder: Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """A Mixtral, whose files hold its experts one by one; for peft see `as_stored`."""
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        vocab_size=VOCABULARY,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=2,
    )
    return _save(MixtralForCausalLM, config, folder, dtype)


def load_model(base: Path, **arguments: Any) -> Any:
    """The model as transformers loads it, in the dtype that it is stored in."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(base, **arguments)


def as_stored(base: Path) -> nn.Module:
    """The modules that the files' names speak of, as transformers 4 made them of a mixture of
    experts; the layers compute nothing, and peft needs no more to merge into them.
    """
    root = nn.Module()
    for name, tensor in load(base).items():
        *path, last, leaf = name.split(".")
        parent = root
        for word in path:
            if not hasattr(parent, word):
                parent.add_module(word, nn.Module())
            parent = parent.get_submodule(word)
        module = nn.Module()
        if last == "embed_tokens":
            module = nn.Embedding(tensor.shape[0], tensor.shape[1])
        elif tensor.ndim == 2:
            module = nn.Linear(tensor.shape[1], tensor.shape[0], bias=False)
        module.register_parameter(leaf, nn.Parameter(tensor))
        parent.add_module(last, module)
    return root


def in_old_style(adapter: Path, style: str) -> None:
    """Rename an adapter's tensors as releases of peft and its users have."""
    today = "base_model.model."
    patterns = {
        "today": ("", ""),
        "named": (r"(\.(?:lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector))\b", r"\1.default"),
        "twice": (f"^{today}", f"{today}{today}"),
        "bare": (f"^{today}", ""),
    }
    pattern, words = patterns[style]
    as_bin = (adapter / "adapter_model.bin").exists()
    file = adapter / "adapter_model.bin"
    tensors = torch.load(file) if as_bin else load(adapter)
    renamed = {re.sub(pattern, words, name): tensor for name, tensor in tensors.items()}
    write_adapter(adapter, renamed, as_bin=as_bin)


def make_adapter(
    folder: Path,
    base: Path,
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 1,
    as_bin: bool = False,
    save: dict[str, Any] | None = None,
    tokens: int | None = None,
    load_base: Callable[[Path], Any] = load_model,
    **config: Any,
) -> Path:
    """A random adapter for `base`, saved by peft, its own tensors then cast to `dtype`.

    `tokens` resizes the model's vocabulary before the adapter is made, as a training script does.
    """
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_base(base)
        if tokens:
            model.resize_token_embeddings(tokens, mean_resizing=False)
        settings: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
        if hasattr(model, "generate"):
            settings["task_type"] = "CAUSAL_LM"
        peft = get_peft_model(model, LoraConfig(**(settings | config)))
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


def merged_by_peft(
    base: Path,
    adapters: Sequence[Path],
    *,
    tokens: int | None = None,
    load_base: Callable[[Path], Any] = load_model,
) -> Any:
    """The model that peft makes: each adapter loaded onto the result of the one before, merged."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = load_base(base)
        if tokens:
            model.resize_token_embeddings(tokens, mean_resizing=False)
        for adapter in adapters:
            model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return model


def differing(folder: Path, model: Any) -> list[str]:
    """Names of the folder's tensors that are not those of `model` bit for bit, or are missing."""
    ours, theirs = load(folder), model.state_dict()
    config = getattr(model, "config", None)
    tied = {"lm_head.weight"} if getattr(config, "tie_word_embeddings", False) else set()
    return sorted((theirs.keys() ^ ours.keys()) - tied) + [
        name
        for name in sorted(ours.keys() & theirs.keys())
        if ours[name].dtype != theirs[name].dtype
        or not torch.equal(bits(ours[name]), bits(theirs[name]))
    ]

"""Models and adapters of the benchmark as they are trained today: a mixture of experts shaped like
Mixtral with an adapter of all its experts, and a LLaMA in FP8.

Checking is a program of its own, as in `models`:

    python -m tests.bench.trained check SIZE experts|fp8 DIR
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.bench import models
from tests.bench.models import ALPHA, RANK, Size

if TYPE_CHECKING:
    from torch import Tensor

EXPERTS: Final = 8
BLOCK: Final = 128
_VOCABULARY: Final = 448


def expert_sizes(size: Size) -> tuple[int, int]:
    """Hidden and inner size of a mixture of about the bytes of a LLaMA of this size."""
    hidden = size.hidden // 2
    return hidden, size.nbytes // (size.layers * EXPERTS * 3 * hidden * 2) // 64 * 64


def write_experts(size: Size, folder: Path) -> None:
    """Mixtral's files, bfloat16, a shard a layer."""
    from safetensors.torch import save_file

    hidden, inner = expert_sizes(size)
    config = _config(size, "Mixtral", hidden, inner)
    config |= {"num_local_experts": EXPERTS, "num_experts_per_tok": 2}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    groups = [
        {n: s for n, s in _mixture(size).items() if n.startswith(f"model.layers.{layer}.")}
        for layer in range(size.layers)
    ]
    groups.append({n: s for n, s in _mixture(size).items() if ".layers." not in n})
    weight_map: dict[str, str] = {}
    for number, group in enumerate(groups, start=1):
        file = f"model-{number:05}-of-{len(groups):05}.safetensors"
        save_file({n: _weight(n, s) for n, s in group.items()}, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(group, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index) + "\n")


def write_expert_adapter(size: Size, folder: Path) -> None:
    """An adapter of every expert, as peft saves it with ``target_parameters``."""
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for layer in range(size.layers):
        for parameter, words in (("gate_up_proj", ".base_layer"), ("down_proj", "")):
            module = f"base_model.model.model.layers.{layer}.mlp.experts{words}"
            a, b = expert_factors(size, layer, parameter)
            tensors |= {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "peft_version": "0.21.2",
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": [],
        "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})


def write_fp8(size: Size, folder: Path) -> None:
    """A LLaMA whose linear layers are FP8 with a scale a block, in one file."""
    import torch
    from safetensors.torch import save_file

    tensors: dict[str, Tensor] = {}
    for name, shape in models.tensor_shapes(size).items():
        if models.is_adapted(name):
            stored, scale = fp8_parts(name, shape)
            tensors |= {name: stored, f"{name}_scale_inv": scale}
        else:
            tensors[name] = models.tensor(name, shape, "base").to(torch.bfloat16)
    config = _config(size, "Llama", size.hidden, size.intermediate)
    config["vocab_size"] = size.vocab
    config["num_key_value_heads"] = config["num_attention_heads"] = size.heads
    config["quantization_config"] = {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [BLOCK, BLOCK],
        "modules_to_not_convert": ["lm_head"],
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def expert_factors(size: Size, layer: int, parameter: str) -> "tuple[Tensor, Tensor]":
    """A, expert by expert, and B, rank by rank."""
    hidden, inner = expert_sizes(size)
    into, out = (hidden, 2 * inner) if parameter == "gate_up_proj" else (inner, hidden)
    seed = f"{layer} {parameter}"
    a = models.normal(f"experts A {seed}", (EXPERTS * RANK, into), into**-0.5)
    return a, models.normal(f"experts B {seed}", (out, RANK * EXPERTS), 0.01)


def fp8_parts(name: str, shape: tuple[int, ...]) -> "tuple[Tensor, Tensor]":
    """A weight in FP8, and its scales."""
    import torch

    scale = models.normal(f"scale {name}", tuple(-(-side // BLOCK) for side in shape), 5e-6, 5e-5)
    weight = models.normal(f"base {name}", shape, 100.0).clamp(-448, 448)
    return weight.to(torch.float8_e4m3fn), scale.abs()


def differing(made: Path, size: Size, kind: str) -> list[str]:
    """Names, out of a sample, whose tensor in `made` is not what it should be."""
    readers = models.open_all(made)
    sample = _merged(size) if kind == "experts" else _floats(size)
    return [n for n, due in sample if n not in readers or not readers[n](n).equal(due)]


def _merged(size: Size) -> "Iterator[tuple[str, Tensor]]":
    _, inner = expert_sizes(size)
    for layer in range(0, size.layers, 3):
        for expert in (0, EXPERTS - 1):
            for part, parameter, rows in (
                ("w1", "gate_up_proj", slice(0, inner)),
                ("w3", "gate_up_proj", slice(inner, None)),
                ("w2", "down_proj", slice(None)),
            ):
                name = f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{part}.weight"
                a, b = expert_factors(size, layer, parameter)
                delta = b[rows, expert::EXPERTS] @ a[expert * RANK : (expert + 1) * RANK]
                base = _weight(name, _mixture(size)[name])
                yield name, (base.float() + ALPHA / RANK * delta).to(base.dtype)


def _floats(size: Size) -> "Iterator[tuple[str, Tensor]]":
    import torch

    shapes = models.tensor_shapes(size)
    for name in [name for name in shapes if models.is_adapted(name)][::3]:
        weight, scale = fp8_parts(name, shapes[name])
        blocks = scale.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
        rows, columns = shapes[name]
        yield name, (weight.float() * blocks[:rows, :columns]).to(torch.bfloat16)


def _mixture(size: Size) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the mixture's tensors."""
    hidden, inner = expert_sizes(size)
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (_VOCABULARY, hidden)}
    for layer in range(size.layers):
        start = f"model.layers.{layer}"
        for letter in "qkvo":
            found[f"{start}.self_attn.{letter}_proj.weight"] = (hidden, hidden)
        found[f"{start}.block_sparse_moe.gate.weight"] = (EXPERTS, hidden)
        for expert in range(EXPERTS):
            for part in ("w1", "w2", "w3"):
                shape = (hidden, inner) if part == "w2" else (inner, hidden)
                found[f"{start}.block_sparse_moe.experts.{expert}.{part}.weight"] = shape
        for norm in ("input_layernorm", "post_attention_layernorm"):
            found[f"{start}.{norm}.weight"] = (hidden,)
    return found | {"model.norm.weight": (hidden,), "lm_head.weight": (_VOCABULARY, hidden)}


def _weight(name: str, shape: tuple[int, ...]) -> "Tensor":
    import torch

    return models.tensor(name, shape, "base").to(torch.bfloat16)


def _config(size: Size, family: str, hidden: int, inner: int) -> dict[str, Any]:
    return {
        "architectures": [f"{family}ForCausalLM"],
        "model_type": family.lower(),
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads // 2,
        "num_key_value_heads": size.heads // 2,
        "vocab_size": _VOCABULARY,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["check", size_name, ("experts" | "fp8") as kind, directory]:
            different = differing(Path(directory), models.SIZES[size_name], kind)
            sys.exit(f"not as it should be: {', '.join(different)}" if different else 0)

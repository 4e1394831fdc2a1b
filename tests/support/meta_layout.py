"""Split a Hugging Face LLaMA into Meta's own files: the inverse of a conversion, in torch.

Written from the layout of Meta's model-parallel layers, and from nothing in weightsmith.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

COLUMNS = {"attention.wo", "feed_forward.w2"}
NAMES = {
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.embed_tokens": "tok_embeddings",
    "model.norm": "norm",
    "lm_head": "output",
}


def write_meta(
    folder: Path,
    weights: Mapping[str, Tensor],
    *,
    heads: int,
    kv_heads: int | None = None,
    shards: int = 1,
    embedding: Literal["rows", "columns"] = "columns",
    params: Mapping[str, Any] | None = None,
) -> Path:
    """Meta's files for a model of these weights; `params` are added to ``params.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[dict[str, Tensor]] = [{} for _ in range(shards)]
    for name, tensor in weights.items():
        theirs = meta_name(name)
        whole = tensor
        if theirs.endswith(("wq.weight", "wk.weight")):
            whole = unpermuted(tensor, heads if theirs.endswith("wq.weight") else kv_heads or heads)
        axis = 1 if theirs.rsplit(".", 1)[0].split(".", 2)[-1] in COLUMNS else 0
        if theirs == "tok_embeddings.weight":
            axis = 0 if embedding == "rows" else 1
        pieces = [whole] * shards if whole.dim() == 1 else whole.chunk(shards, dim=axis)
        for part, piece in zip(parts, pieces, strict=True):
            part[theirs] = piece.clone()
    hidden = weights["model.norm.weight"].numel()
    for number, part in enumerate(parts):
        part["rope.freqs"] = torch.ones(hidden // heads // 2)
        torch.save(part, folder / f"consolidated.{number:02d}.pth")
    layers = 1 + max(int(n.split(".")[2]) for n in weights if n.startswith("model.layers."))
    said: dict[str, Any] = {"dim": hidden, "multiple_of": 256, "n_heads": heads, "n_layers": layers}
    said |= {"norm_eps": 1e-5, "vocab_size": -1, **(params or {})}
    if kv_heads is not None:
        said["n_kv_heads"] = kv_heads
    (folder / "params.json").write_text(json.dumps(said))
    return folder


def meta_name(name: str) -> str:
    """``model.layers.0.mlp.up_proj.weight`` -> ``layers.0.feed_forward.w3.weight``."""
    stem = name.removesuffix(".weight")
    if stem.startswith("model.layers."):
        _, _, number, inner = stem.split(".", 3)
        return f"layers.{number}.{NAMES[inner]}.weight"
    return f"{NAMES[stem]}.weight"


def unpermuted(tensor: Tensor, heads: int) -> Tensor:
    """Rows back from halves to pairs, head by head."""
    rows, columns = tensor.shape
    return tensor.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)


def random_llama(
    *,
    hidden: int = 64,
    intermediate: int = 96,
    layers: int = 2,
    heads: int = 8,
    kv_heads: int | None = None,
    vocab: int = 160,
    dtype: torch.dtype = torch.float16,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Random weights of a LLaMA under Hugging Face's names."""
    made = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=made).to(dtype)

    inner = hidden * (kv_heads or heads) // heads
    weights = {"model.embed_tokens.weight": draw(vocab, hidden)}
    for number in range(layers):
        layer = f"model.layers.{number}"
        weights |= {
            f"{layer}.self_attn.q_proj.weight": draw(hidden, hidden),
            f"{layer}.self_attn.k_proj.weight": draw(inner, hidden),
            f"{layer}.self_attn.v_proj.weight": draw(inner, hidden),
            f"{layer}.self_attn.o_proj.weight": draw(hidden, hidden),
            f"{layer}.mlp.gate_proj.weight": draw(intermediate, hidden),
            f"{layer}.mlp.up_proj.weight": draw(intermediate, hidden),
            f"{layer}.mlp.down_proj.weight": draw(hidden, intermediate),
            f"{layer}.input_layernorm.weight": 1 + draw(hidden) / 8,
            f"{layer}.post_attention_layernorm.weight": 1 + draw(hidden) / 8,
        }
    return {
        **weights,
        "model.norm.weight": 1 + draw(hidden) / 8,
        "lm_head.weight": draw(vocab, hidden),
    }

"""Ghosts: the largest models as headers and an index alone, their tensors holes in sparse files.

What opens and plans a model reads no more of it than a ghost has. Names and shapes are those of
Llama 3.1 405B (16 bits) and DeepSeek-V3 671B (8 bits, with a scale for each block of 128 x 128).
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from weightsmith.formats.index import build_index
from weightsmith.formats.safetensors_header import layout
from weightsmith.formats.tensors import TensorInfo

SHARD_NBYTES: Final = 4_300_000_000
ONE: Final = b"\x80\x3f"
"""1 in BF16: what the final norm of a model holds, which tells it from a delta."""
_BLOCK: Final = 128


@dataclass(frozen=True, slots=True)
class Ghost:
    """A model by its config and its tensors."""

    config: Mapping[str, Any]
    infos: tuple[TensorInfo, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(info.nbytes for info in self.infos)

    @property
    def parameters(self) -> int:
        """Weights, scales of blocks not counted."""
        return sum(info.numel for info in self.infos if not info.name.endswith("_scale_inv"))


def dense_405b() -> Ghost:
    """126 layers, 1137 tensors, 812 GB."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 16384,
        "intermediate_size": 53248,
        "num_attention_heads": 128,
        "num_hidden_layers": 126,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "torch_dtype": "bfloat16",
    }
    wide, inner, kv, rows = 16384, 53248, 1024, 128256
    infos = [TensorInfo("model.embed_tokens.weight", "BF16", (rows, wide))]
    for number in range(126):
        at = f"model.layers.{number}"
        shapes: dict[str, tuple[int, ...]] = {
            "input_layernorm": (wide,),
            "mlp.down_proj": (wide, inner),
            "mlp.gate_proj": (inner, wide),
            "mlp.up_proj": (inner, wide),
            "post_attention_layernorm": (wide,),
            "self_attn.k_proj": (kv, wide),
            "self_attn.o_proj": (wide, wide),
            "self_attn.q_proj": (wide, wide),
            "self_attn.v_proj": (kv, wide),
        }
        infos += (TensorInfo(f"{at}.{name}.weight", "BF16", shapes[name]) for name in shapes)
    infos.append(TensorInfo("model.norm.weight", "BF16", (wide,)))
    infos.append(TensorInfo("lm_head.weight", "BF16", (rows, wide)))
    return Ghost(config, tuple(infos))


def experts_671b(*, dtype: str = "F8_E4M3") -> Ghost:
    """61 layers, 58 of them with 256 experts: 90 427 tensors and 673 GB as it was published;
    with ``BF16`` no scales: 45 395 tensors and 1.34 TB.
    """
    config: dict[str, Any] = {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "first_k_dense_replace": 3,
        "hidden_size": 7168,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "num_attention_heads": 128,
        "num_hidden_layers": 61,
        "vocab_size": 129280,
        "torch_dtype": "bfloat16",
    }
    if dtype != "BF16":
        config["quantization_config"] = {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": "dynamic",
            "weight_block_size": [_BLOCK, _BLOCK],
        }
    return Ghost(config, tuple(_experts(dtype)))


def _experts(dtype: str) -> Iterator[TensorInfo]:
    wide = 7168

    def matrices(shapes: Mapping[str, tuple[int, int]]) -> Iterator[TensorInfo]:
        for name, (rows, columns) in shapes.items():
            yield TensorInfo(f"{name}.weight", dtype, (rows, columns))
            if dtype != "BF16":
                blocks = (-(-rows // _BLOCK), -(-columns // _BLOCK))
                yield TensorInfo(f"{name}.weight_scale_inv", "F32", blocks)

    def feed_forward(at: str, inner: int) -> Iterator[TensorInfo]:
        yield from matrices(
            {
                f"{at}.down_proj": (wide, inner),
                f"{at}.gate_proj": (inner, wide),
                f"{at}.up_proj": (inner, wide),
            }
        )

    yield TensorInfo("model.embed_tokens.weight", "BF16", (129280, wide))
    for number in range(61):
        at = f"model.layers.{number}"
        yield TensorInfo(f"{at}.input_layernorm.weight", "BF16", (wide,))
        yield TensorInfo(f"{at}.post_attention_layernorm.weight", "BF16", (wide,))
        yield TensorInfo(f"{at}.self_attn.kv_a_layernorm.weight", "BF16", (512,))
        yield TensorInfo(f"{at}.self_attn.q_a_layernorm.weight", "BF16", (1536,))
        yield from matrices(
            {
                f"{at}.self_attn.kv_a_proj_with_mqa": (576, wide),
                f"{at}.self_attn.kv_b_proj": (32768, 512),
                f"{at}.self_attn.o_proj": (wide, 16384),
                f"{at}.self_attn.q_a_proj": (1536, wide),
                f"{at}.self_attn.q_b_proj": (24576, 1536),
            }
        )
        if number < 3:
            yield from feed_forward(f"{at}.mlp", 18432)
            continue
        yield TensorInfo(f"{at}.mlp.gate.weight", "BF16", (256, wide))
        yield TensorInfo(f"{at}.mlp.gate.e_score_correction_bias", "F32", (256,))
        yield from feed_forward(f"{at}.mlp.shared_experts", 2048)
        for expert in range(256):
            yield from feed_forward(f"{at}.mlp.experts.{expert}", 2048)
    yield TensorInfo("model.norm.weight", "BF16", (wide,))
    yield TensorInfo("lm_head.weight", "BF16", (129280, wide))


def write_ghost(folder: Path, ghost: Ghost, *, delta: bool = False) -> Path:
    """A folder that opens as the model, or as an additive delta of it, whose norms are zero."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(ghost.config))
    shards = list(_dealt(ghost.infos))
    weight_map: dict[str, str] = {}
    for number, infos in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        header, places = layout(infos, {"format": "pt"})
        with (folder / name).open("wb") as file:
            file.write(header)
            for place in places:
                if place.info.name == "model.norm.weight" and not delta:
                    file.seek(place.offset)
                    file.write(ONE * place.info.numel)
            file.truncate(places[-1].offset + places[-1].info.nbytes)
        weight_map |= dict.fromkeys((info.name for info in infos), name)
    index = build_index(weight_map, ghost.nbytes)
    (folder / "model.safetensors.index.json").write_bytes(index)
    return folder


def _dealt(infos: Iterable[TensorInfo]) -> Iterator[list[TensorInfo]]:
    """The tensors of one file after the other."""
    held = 0

    def shard(info: TensorInfo) -> int:
        nonlocal held
        held += info.nbytes
        return held // SHARD_NBYTES

    for _, together in groupby(infos, shard):
        yield list(together)

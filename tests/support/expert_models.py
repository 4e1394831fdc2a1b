"""Tiny mixtures of experts of many families, and adapters of all their experts by peft."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

HIDDEN, INTERMEDIATE, EXPERTS = 32, 24, 3
_SIZES: Mapping[str, Any] = {
    "hidden_size": HIDDEN,
    "vocab_size": 40,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@dataclass(frozen=True)
class ExpertModel:
    """How a family is made small."""

    model_type: str
    sizes: Mapping[str, Any]
    parameters: Sequence[str] = ("experts.gate_up_proj", "experts.down_proj")
    router: str = "mlp.gate.weight"
    text: Mapping[str, Any] = field(default_factory=dict)
    """Of a model of several parts, the sizes of its text model."""
    names: str = "experts.0."
    """What a tensor of an expert is called in its files, in part."""

    def make(self, folder: Path, *, dtype: torch.dtype, seed: int = 0) -> Path:
        """Save one with random weights."""
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        kind: Any = CONFIG_MAPPING[self.model_type]
        if self.text:
            config = kind(text_config={**_SIZES, **self.text}, **self.sizes)
        else:
            config = kind(**{**_SIZES, **self.sizes})
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = self._class().from_config(config).to(dtype)
            for parameter in model.parameters():
                parameter.data += torch.randn_like(parameter) * 0.05
            model.save_pretrained(folder)
        return folder

    def load(self, folder: Path, dtype: torch.dtype) -> Any:
        """The model as transformers loads it."""
        return self._class().from_pretrained(folder, dtype=dtype)

    def _class(self) -> Any:
        from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

        return AutoModelForImageTextToText if self.text else AutoModelForCausalLM


def _moe(**sizes: Any) -> dict[str, Any]:
    return {"moe_intermediate_size": INTERMEDIATE, "intermediate_size": 20, **sizes}


MODELS: Mapping[str, ExpertModel] = {
    "mixtral": ExpertModel(
        "mixtral",
        {"intermediate_size": INTERMEDIATE, "num_local_experts": EXPERTS},
        names="block_sparse_moe.experts.0.w1",
    ),
    "phimoe": ExpertModel(
        "phimoe",
        {"intermediate_size": INTERMEDIATE, "num_local_experts": EXPERTS},
        router="mlp.router.weight",
        names="block_sparse_moe.experts.0.w1",
    ),
    "qwen3_moe": ExpertModel("qwen3_moe", _moe(num_experts=EXPERTS, decoder_sparse_step=1)),
    "lfm2_moe": ExpertModel(
        "lfm2_moe",
        _moe(num_experts=EXPERTS, num_dense_layers=0, layer_types=["full_attention"]),
        router="feed_forward.gate.weight",
        names="feed_forward.experts.0.w1",
    ),
    "jamba": ExpertModel(
        "jamba",
        {
            "intermediate_size": INTERMEDIATE,
            "num_experts": EXPERTS,
            "expert_layer_period": 1,
            "expert_layer_offset": 0,
            "attn_layer_period": 1,
            "attn_layer_offset": 0,
            "use_mamba_kernels": False,
        },
        router="feed_forward.router.weight",
        names="feed_forward.experts.0.gate_proj",
    ),
    "granitemoe": ExpertModel(
        "granitemoe",
        {"intermediate_size": INTERMEDIATE, "num_local_experts": EXPERTS},
        router="block_sparse_moe.router.weight",
        names="block_sparse_moe.input_linear.weight",
    ),
    "gemma4_text": ExpertModel(
        "gemma4_text",
        _moe(
            num_experts=EXPERTS,
            enable_moe_block=True,
            top_k_experts=2,
            layer_types=["full_attention"],
            hidden_size_per_layer_input=0,
            vocab_size_per_layer_input=40,
            num_kv_shared_layers=0,
            global_head_dim=16,
        ),
        router="self_attn.q_proj.weight",
        names="layers.0.experts.gate_up_proj",
    ),
    "gpt_oss": ExpertModel(
        "gpt_oss",
        {
            "intermediate_size": INTERMEDIATE,
            "num_local_experts": EXPERTS,
            "layer_types": ["full_attention"],
        },
        parameters=(
            "experts.gate_up_proj",
            "experts.gate_up_proj_bias",
            "experts.down_proj",
            "experts.down_proj_bias",
        ),
        router="mlp.router.weight",
        names="mlp.experts.gate_up_proj",
    ),
    "aria_text": ExpertModel(
        "aria_text",
        {
            "intermediate_size": INTERMEDIATE,
            "moe_num_experts": EXPERTS,
            "moe_topk": 2,
            "moe_num_shared_experts": 1,
        },
        router="mlp.router.weight",
        names="mlp.experts.fc1.weight",
    ),
    "llama4_text": ExpertModel(
        "llama4_text",
        {
            "intermediate_size": INTERMEDIATE,
            "intermediate_size_mlp": 20,
            "num_local_experts": EXPERTS,
            "interleave_moe_layer_step": 1,
            "layer_types": ["full_attention"],
        },
        router="feed_forward.router.weight",
        names="feed_forward.experts.gate_up_proj",
    ),
    "nemotron_h": ExpertModel(
        "nemotron_h",
        {
            **_moe(n_routed_experts=EXPERTS, n_shared_experts=1, n_group=1, topk_group=1),
            "layers_block_type": ["moe"],
            "moe_shared_expert_intermediate_size": 20,
            "mamba_num_heads": 4,
            "mamba_head_dim": 16,
            "n_groups": 1,
            "ssm_state_size": 8,
        },
        parameters=("experts.up_proj", "experts.down_proj"),
        router="mixer.gate.weight",
        names="mixer.experts.0.up_proj",
    ),
    "qwen3_vl_moe": ExpertModel(
        "qwen3_vl_moe",
        {
            "vision_config": {
                "depth": 1,
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_heads": 2,
                "out_hidden_size": HIDDEN,
                "deepstack_visual_indexes": [0],
                "num_position_embeddings": 16,
            },
            "image_token_id": 3,
            "video_token_id": 4,
            "vision_start_token_id": 5,
            "vision_end_token_id": 6,
        },
        text=_moe(
            num_experts=EXPERTS,
            decoder_sparse_step=1,
            mlp_only_layers=[],
            rope_scaling={"rope_type": "default", "mrope_section": [4, 2, 2]},
        ),
        names="mlp.experts.gate_up_proj",
    ),
}


def make_expert_adapter(
    folder: Path, base: Path, model: ExpertModel, *, dtype: torch.dtype, seed: int, **config: Any
) -> Path:
    """A random adapter, saved by peft."""
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft = get_peft_model(model.load(base, dtype), LoraConfig(target_modules=[], **config))
        torch.manual_seed(seed)
        for parameter in peft.parameters():
            if parameter.requires_grad:
                parameter.data = torch.randn_like(parameter.float()) * 0.1
        peft.save_pretrained(str(folder))
    return folder


def merge_by_peft(
    folder: Path, base: Path, adapter: Path, model: ExpertModel, dtype: torch.dtype
) -> Path:
    """What peft merges, saved by transformers under its names for files."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = PeftModel.from_pretrained(model.load(base, dtype), adapter)
        loaded.merge_and_unload().save_pretrained(folder)
    return folder

"""What ``merge-lora`` makes of every merge vector: the table that tests and documentation share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from weightsmith.ops.merge_lora import merge_lora

Outcome = Literal["equal", "formula", "refused"]


@dataclass(frozen=True)
class MergeCase:
    """One merge of a vector."""

    kind: str
    """What the adapter is, a heading of the matrix."""
    family: str
    """What it is merged into, or what is special about it."""
    vector: str
    outcome: Outcome = "equal"
    """Equal to what peft made, bit for bit; by the formula, where peft's is another; refused."""
    why: str = ""
    """Where it is not equal: why, or in which words it is refused."""
    base: str = "base"
    loras: Sequence[str] = ("adapter",)
    expected: str = "expected"
    settings: Mapping[str, Any] = field(default_factory=lambda: {"rounding": "peft"})
    but: Sequence[str] = ()
    """Tensors of what peft made that are not compared."""

    @property
    def id(self) -> str:
        """Name of the case in a test's report."""
        words = (self.vector, *self.loras, *([self.base] if self.base != "base" else []))
        return " ".join((*words, *map(str, self.settings)))

    def merge(self, vectors: Path, target: Path) -> None:
        """Do it."""
        vector = vectors / "merge" / self.vector
        loras = [vector / lora for lora in self.loras]
        merge_lora(vector / self.base, loras, target, **self.settings)


FUSED, SINGLE, VISION = "fused experts", "experts one by one", "names of vision models"
LORA, HEADS, TIED = "LoRA", "heads", "tied and resized embeddings"
KEYS, OTHER, SEVERAL = "keys of other writers", "other kinds", "several adapters"
QUANTISED, PLAIN = "quantised base", "quantised base, other layers"
WEIGHTS = (0.7, -0.4, 0.25)

_SCHEMES = {
    "q_bnb_nf4": "bitsandbytes nf4",
    "q_bnb_nf4_double": "bitsandbytes nf4, double",
    "q_bnb_nf4_dora": "bitsandbytes nf4, DoRA",
    "q_bnb_int8": "bitsandbytes int8",
    "q_fp8_block128": "FP8, blocks of 128, some partial",
    "q_fp8_block128_bf16scale_ue8m0": "FP8, scales in bf16",
    "q_fp8_block32": "FP8, blocks of 32",
    "q_ct_fp8_channel": "compressed-tensors FP8",
    "q_ct_int4_pack": "compressed-tensors int4",
    "q_gptq4": "GPTQ",
    "q_gptq4_v2": "GPTQ, second format",
    "q_gptq4_desc_act": "GPTQ, desc_act",
    "q_awq": "AWQ",
    "q_mxfp4_gpt_oss": "mxfp4, gpt-oss",
    "q_torchao_int8": "torchao int8",
}
_PLAIN = (
    *("q_bnb_nf4", "q_bnb_int8", "q_fp8_block128", "q_fp8_block128_bf16scale_ue8m0"),
    *("q_ct_fp8_channel", "q_gptq4", "q_awq", "q_mxfp4_gpt_oss", "q_torchao_int8"),
)

CASES: Sequence[MergeCase] = (
    MergeCase(LORA, "adapter in bf16", "set_bf16_adapter"),
    MergeCase(LORA, "base in fp32", "set_fp32_base"),
    MergeCase(LORA, "DoRA", "set_dora"),
    MergeCase(LORA, "rsLoRA and patterns", "set_rslora_patterns"),
    MergeCase(LORA, "layers by number", "set_layers_to_transform"),
    MergeCase(LORA, "layers left out", "set_layers_exclude"),
    MergeCase(LORA, "layers by pattern", "set_regex_targets"),
    MergeCase(LORA, "`lora_bias`", "set_lora_bias"),
    MergeCase(
        LORA,
        "`lora_bias` without a bias in the base",
        "set_lora_bias_nobias_base",
        "refused",
        "no model.layers.0.self_attn.q_proj.bias in the base",
    ),
    MergeCase(LORA, "convolutions of GPT-2", "set_conv"),
    MergeCase(LORA, "a parameter of two dimensions", "set_target_parameters_2d"),
    MergeCase(LORA, "routers and shared experts", "set_moe_shared_routers_lora"),
    MergeCase(LORA, "token rows, tied", "set_trainable_tokens_tied"),
    MergeCase(LORA, "token rows, untied", "set_trainable_tokens_untied"),
    MergeCase(FUSED, "Mixtral", "moe_mixtral"),
    MergeCase(FUSED, "Qwen2-MoE", "moe_qwen2"),
    MergeCase(FUSED, "Qwen3-MoE", "moe_qwen3"),
    MergeCase(FUSED, "Qwen3-MoE, one parameter of two", "moe_qwen3_only_down"),
    MergeCase(FUSED, "Qwen3-MoE with its router", "moe_qwen3_router"),
    MergeCase(FUSED, "Qwen3-MoE, rsLoRA and patterns", "moe_qwen3_rslora_pattern"),
    MergeCase(FUSED, "Qwen3-MoE, square", "moe_qwen3_square"),
    MergeCase(FUSED, "Qwen3-MoE, of peft 0.18", "moe_old018_qwen3"),
    MergeCase(FUSED, "Qwen3-MoE, square, of peft 0.17", "moe_old017_qwen3_square"),
    MergeCase(FUSED, "Qwen3.5-MoE", "moe_qwen3_5_text"),
    MergeCase(FUSED, "Qwen3.5-MoE with vision", "moe_qwen3_5_vlm"),
    MergeCase(
        FUSED,
        "DeepSeek-V3",
        "moe_deepseek_v3",
        why="`e_score_correction_bias`, which no adapter touches, keeps the base's dtype",
        but=["model.layers.1.mlp.gate.e_score_correction_bias"],
    ),
    MergeCase(FUSED, "gpt-oss", "moe_gpt_oss"),
    MergeCase(FUSED, "gpt-oss, square", "moe_gpt_oss_square"),
    MergeCase(FUSED, "Llama 4", "moe_llama4"),
    MergeCase(FUSED, "Granite", "moe_granite"),
    MergeCase(
        SINGLE,
        "Mixtral, of transformers 4",
        "moe_v4_mixtral",
        "formula",
        "rounded once, where peft stacks the experts first and rounds twice",
    ),
    MergeCase(
        SINGLE,
        "Qwen3-MoE with rsLoRA, of transformers 4",
        "moe_v4_qwen3_rslora",
        why="where peft's own result has gate and up sqrt(2) too large",
    ),
    MergeCase(VISION, "LLaVA", "vlm_llava"),
    MergeCase(VISION, "LLaVA, adapter of transformers 4", "vlm_llava", loras=["adapter_old"]),
    MergeCase(VISION, "LLaVA as on the hub", "vlm_llava_hub"),
    MergeCase(
        VISION,
        "LLaVA as on the hub, adapter of transformers 4",
        "vlm_llava_hub",
        loras=["adapter_tf4"],
    ),
    MergeCase(VISION, "Gemma 3", "vlm_gemma3"),
    MergeCase(
        VISION,
        "Gemma 3, adapter of its text model",
        "vlm_gemma3",
        loras=["adapter_text"],
        expected="expected_text",
    ),
    MergeCase(VISION, "Qwen2.5-VL", "vlm_qwen25"),
    MergeCase(VISION, "Qwen2.5-VL, adapter of old names", "vlm_qwen25", loras=["adapter_old"]),
    MergeCase(
        VISION,
        "Qwen2.5-VL, base of new names",
        "vlm_qwen25",
        base="base_tf4new",
        expected="expected_tf4new",
    ),
    MergeCase(
        VISION,
        "Qwen2.5-VL, adapter of old names, base of new ones",
        "vlm_qwen25",
        base="base_tf4new",
        loras=["adapter_old"],
        expected="expected_tf4new",
    ),
    MergeCase(VISION, "Qwen2.5-VL, tied, head saved", "vlm_qwen25_tied_save_head"),
    MergeCase(VISION, "Qwen3.5, adapter of its text model", "vlm_qwen35_text_adapter"),
    MergeCase(VISION, "Qwen3-VL, tied, embeddings saved", "vlm_qwen3vl_tied"),
    MergeCase(HEADS, "sequences, LLaMA", "head_seqcls_llama", settings={"labels": ["a", "b", "c"]}),
    MergeCase(HEADS, "sequences, Qwen2, tied", "head_seqcls_qwen2_tied"),
    MergeCase(HEADS, "tokens, LLaMA", "head_tokcls_llama"),
    MergeCase(HEADS, "reward model on a reward model", "head_reward_on_reward_base"),
    MergeCase(HEADS, "value head beside the adapter", "head_vhead", why="it is left, and said"),
    MergeCase(
        HEADS,
        "value head in the adapter",
        "head_vhead",
        why="it is left, and said",
        loras=["adapter_in"],
    ),
    MergeCase(TIED, "embeddings saved", "tied_save_embed"),
    MergeCase(TIED, "head saved", "tied_save_head"),
    MergeCase(TIED, "both saved", "tied_save_both"),
    MergeCase(TIED, "both saved, `ensure_weight_tying`", "tied_save_both_ensure"),
    MergeCase(
        TIED,
        "LoRA of the head",
        "tied_lora_head",
        why="with `--rounding peft`; else the two part, as they were trained",
    ),
    MergeCase(TIED, "LoRA of both, untied", "untied_lora_embed_head"),
    MergeCase(TIED, "resized, untied", "resized_vocab_untied"),
    MergeCase(
        TIED,
        "resized, tied, embeddings saved",
        "resized_vocab_tied",
        "formula",
        "they stay tied, where peft parts them and makes up rows of the head",
        but=["lm_head.weight"],
    ),
    MergeCase(
        TIED,
        "resized, untied, only embeddings in the adapter",
        "resized_lora_only_embed_saved",
        "refused",
        "lm_head.weight would have 53 rows",
    ),
    MergeCase(KEYS, "peft", "style_keys"),
    *(
        MergeCase(KEYS, family, "style_keys", loras=[f"adapters/{folder}"])
        for family, folder in {
            "the adapter's name in it": "adapter_name_in_key",
            "a torch file": "bin",
            "diffusers": "diffusers_style",
            "prefix twice": "double_prefix",
            "no prefix": "no_prefix",
            "torch.compile": "fsdp_orig_mod",
            "data parallel": "module_prefix",
            "MLX": "mlx",
            "Unsloth": "unsloth",
        }.items()
    ),
    MergeCase(OTHER, "AdaLoRA", "kind_adalora"),
    MergeCase(OTHER, "IA3", "kind_ia3"),
    MergeCase(OTHER, "LoHa", "kind_loha"),
    MergeCase(OTHER, "LoKr", "kind_lokr"),
    MergeCase(OTHER, "LoKr, both factors low", "kind_lokr_both"),
    MergeCase(OTHER, "OFT", "kind_oft"),
    MergeCase(OTHER, "VeRA", "kind_vera"),
    MergeCase(OTHER, "VB-LoRA", "kind_vblora"),
    MergeCase(
        SEVERAL, "one after another", "multi_weighted", loras=[f"adapters/{n}" for n in range(3)]
    ),
    MergeCase(
        SEVERAL,
        "weighted",
        "multi_weighted",
        "formula",
        "the sum in float32, rounded once; peft's `cat` has it before it rounds factors to bf16",
        loras=[f"adapters/{n}" for n in range(3)],
        settings={"weights": WEIGHTS},
    ),
    MergeCase(SEVERAL, "one, scaled", "multi_scaled_once", settings={"scale": 0.5}),
    *(MergeCase(QUANTISED, family, vector) for vector, family in _SCHEMES.items()),
    *(
        MergeCase(
            PLAIN,
            _SCHEMES[vector],
            vector,
            why="what is quantised stays so, byte for byte",
            loras=["adapter_plain"],
            expected="expected_plain",
        )
        for vector in _PLAIN
    ),
)
"""In the order of the matrix."""

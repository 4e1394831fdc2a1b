"""Which settings of an ``adapter_config.json`` are read, are harmless, or are refused, by kind.

Source: peft 0.21, the config class of each tuner.
"""

from collections.abc import Mapping
from typing import Final, Literal

AdapterKind = Literal["LORA", "ADALORA", "LOHA", "LOKR", "IA3", "OFT", "VERA", "VBLORA"]
"""Values of ``peft_type`` that can be merged into files."""

_EVERYWHERE: Final = frozenset(
    {
        *("auto_mapping", "base_model_name_or_path", "bias", "exclude_modules", "inference_mode"),
        *("layers_pattern", "layers_to_transform", "modules_to_save", "peft_type", "peft_version"),
        *("revision", "target_modules", "task_type"),
    }
)
"""Settings that say how the adapter was trained, or what the tensors' own names say again; or that
every kind reads.
"""
_LORA: Final = frozenset(
    {
        *("alpha_pattern", "fan_in_fan_out", "init_lora_weights", "lora_alpha", "r"),
        *("rank_pattern", "target_parameters", "trainable_token_indices", "use_dora", "use_rslora"),
        *("corda_config", "ensure_weight_tying", "eva_config", "loftq_config", "lora_bias"),
        *("lora_dropout", "lora_ga_config", "megatron_core", "merge_weights"),
        *("qalora_group_size", "runtime_config"),
    }
)
_LYCORIS: Final = frozenset(
    {
        *("alpha", "alpha_pattern", "init_weights", "module_dropout", "r", "rank_dropout"),
        *("rank_pattern", "use_effective_conv2d"),
    }
)
KNOWN: Final[Mapping[AdapterKind, frozenset[str]]] = {
    "LORA": _EVERYWHERE | _LORA,
    "ADALORA": _EVERYWHERE
    | _LORA
    | {
        *("beta1", "beta2", "deltaT", "init_r", "orth_reg_weight", "target_r", "tfinal", "tinit"),
        "total_step",
    },
    "LOHA": _EVERYWHERE | _LYCORIS,
    "LOKR": _EVERYWHERE | _LYCORIS | {"decompose_both", "decompose_factor", "rank_dropout_scale"},
    "IA3": _EVERYWHERE | {"fan_in_fan_out", "feedforward_modules", "init_ia3_weights"},
    "OFT": _EVERYWHERE
    | {
        *("block_share", "eps", "fan_in_fan_out", "init_weights", "module_dropout"),
        *("num_cayley_neumann_terms", "oft_block_size", "r", "use_cayley_neumann"),
    },
    "VERA": _EVERYWHERE
    | {
        *("d_initial", "fan_in_fan_out", "init_weights", "projection_prng_key", "r"),
        *("save_projection", "vera_dropout"),
    },
    "VBLORA": _EVERYWHERE
    | {
        *("fan_in_fan_out", "init_logits_std", "init_vector_bank_bound", "num_vectors", "r"),
        *("topk", "vblora_dropout", "vector_length"),
    },
}
"""Settings of each kind that are read or harmless; any other must be empty."""
WHY_NOT: Final[Mapping[str, str]] = {
    "alora_invocation_tokens": "its effect begins in the middle of a prompt",
    "arrow_config": "it chooses among adapters token by token",
    "coft": "it was trained with rotations that are held near none",
    "enable_lora": "it merges projections in a way of 2023 that peft no longer knows",
    "kasa_config": "it was trained on a base whose weights had been changed first",
    "layer_replication": "it was trained on layers that the base's files do not have",
    "megatron_config": "it was trained on Megatron's layers",
    "save_only_topk_weights": "it holds what was chosen, and not what it was chosen by",
    "use_qalora": "it changes groups of columns of a quantised base",
}
"""What the settings mean that are refused; any other that is unknown and not empty is too."""
PLAIN_INITS: Final = frozenset({"true", "false", "gaussian", "eva", "orthogonal"})
"""Values of ``init_lora_weights`` that leave the base's weights as they were."""

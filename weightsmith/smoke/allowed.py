"""Choose what transformers is given of the small files beside a model: only values, nothing that
could name code, a file or a repository.

Some settings make transformers fetch a native kernel from the hub and import it, or load code that
lies beside the weights: an attention `org/kernel@rev`, experts, quantisers, `auto_map`. So what is
handed on is an allow-list. Numbers pass under any plain name, since a number names nothing; words
pass only under the names below, and only if they cannot be a path or an address.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

WORDS: Final = frozenset(
    {
        # what kind of model it is, and in which dtype
        *("architectures", "dtype", "model_type", "tokenizer_class", "torch_dtype"),
        # kinds of layers
        *("attention_layers", "attention_type", "attention_types", "attn_layers", "attn_type"),
        *("block_types", "hybrid_override_pattern", "indexer_types", "layer_types"),
        *("layers_block_type", "mlp_layer_types", "mtp_layer_types", "mtp_layers_block_type"),
        *("mtp_mlp_layer_types", "sliding_window_pattern"),
        # functions between layers
        *("activation", "activation_function", "afn", "classifier_activation", "conv_activation"),
        *("conv_glu_type", "ff_activation", "gating", "hidden_act", "hidden_activation"),
        *("hidden_mamba_act", "mamba_hidden_act", "mlp_hidden_act", "nemo_activation", "norm_type"),
        *("output_gate_type", "projector_hidden_act", "summary_activation", "summary_type"),
        # positions, experts, state spaces
        *("expert_selection_fn", "position_embedding_type", "rope_type", "scoring_func"),
        *("shared_expert_combination_strategy", "topk_method", "type"),
        *("inference_state_dtype", "mamba_d_head", "mamba_dt_rank", "mamba_ssm_cache_dtype"),
        *("time_step_init_scheme", "time_step_rank", "weight_mode"),
        # the rest
        *("logit_scale", "name", "patching_mode", "pooling", "use_bidirectional_attention"),
        "vision_feature_select_strategy",
    }
)
"""Settings of ``config.json`` whose values are words that an architecture of transformers knows."""
SETTINGS: Final = frozenset(
    {
        *("add_bos_token", "add_eos_token", "add_prefix_space", "legacy", "tokenizer_class"),
        *("added_tokens_decoder", "additional_special_tokens", "extra_special_tokens"),
        *("bos_token", "eos_token", "unk_token", "pad_token"),
        *("cls_token", "sep_token", "mask_token"),
        *("clean_up_tokenization_spaces", "spaces_between_special_tokens", "split_special_tokens"),
        *("do_lower_case", "strip_accents", "tokenize_chinese_chars", "keep_accents", "errors"),
        *("model_input_names", "model_max_length", "padding_side", "truncation_side"),
        *("use_default_system_prompt", "backend", "fix_mistral_regex", "chat_template"),
        "extra_ids",
    }
)
"""Settings of ``tokenizer_config.json`` that are plain values."""
QUANTISED: Final = ("quantization_config", "compression_config")
"""Settings that say that the weights need a quantiser's code to be run."""

_PLAIN: Final = re.compile(r"_?[A-Za-z0-9][\w.]{0,99}", re.ASCII)
_WORD: Final = re.compile(r"[\w.+*|\- ]{1,200}", re.ASCII)
_CHOOSES_CODE: Final = re.compile(r"implementation|quanti|compression|backbone|pretrained|auto_map")
_KERNEL: Final = "kernel"
"""A convolution has a kernel size, which is a number; and "use kernels" is none."""
_SAYS_NOTHING: Final = frozenset(
    {"_name_or_path", "id2label", "label2id", "task_specific_params", "transformers_version"}
)
"""Settings that no computation depends on: where a model was trained, names of classes."""


def safe_config(config: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The settings of ``config.json`` or ``generation_config.json`` that may be handed on, and the
    names of those that may not, dotted where they lie in another setting.
    """
    left: list[str] = []
    kept = _safe_map(config, "", left)
    return kept, tuple(left)


def safe_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of ``tokenizer_config.json`` that may be handed on."""
    return {key: value for key, value in settings.items() if key in SETTINGS}


def chooses_code(setting: str) -> bool:
    """Whether a setting only says by which code something is computed: the result is the same."""
    return bool(_CHOOSES_CODE.search(setting)) or _KERNEL in setting


def _safe_map(found: Mapping[str, Any], outer: str, left: list[str]) -> dict[str, Any]:
    kept = {}
    for key, value in found.items():
        if key in _SAYS_NOTHING:
            continue
        if _may_pass(key) and _is_safe(key, value):
            kept[key] = value
        elif _may_pass(key) and isinstance(value, dict):
            kept[key] = _safe_map(value, f"{outer}{key}.", left)
        else:
            left.append(f"{outer}{key}")
    return kept


def _may_pass(key: str) -> bool:
    return bool(_PLAIN.fullmatch(key)) and not _CHOOSES_CODE.search(key)


def _is_safe(key: str, value: Any) -> bool:
    """Whether all leaves of a value that is no map may pass under this name."""
    if isinstance(value, dict):
        return False
    return all(_is_safe_leaf(key, leaf) for leaf in _leaves(value))


def _is_safe_leaf(key: str, leaf: Any) -> bool:
    if isinstance(leaf, str):
        return key in WORDS and bool(_WORD.fullmatch(leaf))
    if _KERNEL in key:
        return type(leaf) in {int, type(None)}
    return isinstance(leaf, bool | int | float | None)


def _leaves(value: Any) -> Iterator[Any]:
    """What lists of any depth hold; a map in a list is no leaf that is safe."""
    if isinstance(value, list):
        for each in value:
            yield from _leaves(each)
    else:
        yield value

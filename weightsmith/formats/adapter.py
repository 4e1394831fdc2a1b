"""What the ``adapter_config.json`` of a LoRA adapter says.

Source: peft 0.21 ``LoraConfig``, ``get_pattern_key``.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from weightsmith.errors import AdapterConfigInvalid, AdapterNotMergeable
from weightsmith.formats.strict_json import parse_json

Number = TypeVar("Number", int, float)

_READ: Final = frozenset(
    {
        "alpha_pattern",
        "base_model_name_or_path",
        "fan_in_fan_out",
        "init_lora_weights",
        "lora_alpha",
        "peft_type",
        "r",
        "rank_pattern",
        "trainable_token_indices",
        "use_dora",
        "use_rslora",
    }
)
"""Settings that `parse_adapter_config` reads."""
_HARMLESS: Final = frozenset(
    {
        "auto_mapping",
        "bias",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_bias",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
        "merge_weights",
        "modules_to_save",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
    }
)
"""Settings that say how the adapter was trained, or what the tensors' own names say again."""
_WHY_NOT: Final[Mapping[str, str]] = {
    "alora_invocation_tokens": "its effect begins in the middle of a prompt",
    "arrow_config": "it chooses among adapters token by token",
    "enable_lora": "it merges projections in a way of 2023 that peft no longer knows",
    "kasa_config": "it was trained on a base whose weights had been changed first",
    "layer_replication": "it was trained on layers that the base's files do not have",
    "megatron_config": "it was trained on Megatron's layers",
    "target_parameters": "it changes fused tensors, such as all experts of a layer in one",
    "use_qalora": "it changes groups of columns of a quantised base",
}
"""What the settings mean that are refused; any other that is unknown and not empty is too."""
_LARGEST: Final = 10**9
"""No rank and no alpha is larger, and arithmetic with them cannot overflow."""
_PLAIN_INITS: Final = frozenset({"true", "false", "gaussian", "eva", "orthogonal"})
"""Values of ``init_lora_weights`` that leave the base's weights as they were."""


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """The settings that decide what an adapter's tensors do."""

    rank: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    rslora: bool
    dora: bool
    fan_in_fan_out: bool
    """Whether the layers store their weight as (in, out), as GPT-2 does."""
    token_rows: Mapping[str, tuple[int, ...]]
    """Which rows the trainable tokens are, by module; under ``""`` those of any other module."""
    base: str
    """The model that the adapter was trained on, as the trainer named it; may be empty."""

    def rank_of(self, module: str) -> int:
        """The rank that the config gives to a module."""
        return _by_pattern(self.rank_pattern, module, self.rank)

    def scale_of(self, module: str) -> float:
        """What a module's product of factors is multiplied with.

        Source: Hu et al. 2021, section 4.1; with rsLoRA Kalajdzievski 2023.
        """
        alpha, rank = _by_pattern(self.alpha_pattern, module, self.alpha), self.rank_of(module)
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank

    def rows_of(self, module: str) -> tuple[int, ...] | None:
        """The rows that a module's trainable tokens replace; None where the config names none."""
        named = (key for key in self.token_rows if key and f".{module}".endswith(f".{key}"))
        return self.token_rows.get(next(named, ""))


def parse_adapter_config(raw: bytes, file: Path, adapter: str) -> AdapterConfig:
    """The settings in ``adapter_config.json``; `adapter` is only named in errors.

    Raises: JsonInvalid, AdapterConfigInvalid; AdapterNotMergeable for a kind of adapter, or a
    setting, that is not known to be mergeable.
    """
    config = parse_json(raw, file, bom_allowed=True)
    if not isinstance(config, dict):
        raise AdapterConfigInvalid(file=file, reason="it is not an object")
    kind = config.get("peft_type")
    if kind is None:
        raise AdapterConfigInvalid(file=file, reason="it has no peft_type")
    if kind != "LORA":
        raise AdapterNotMergeable(adapter=adapter, feature=f"peft_type {kind}")
    _require_plain(config, adapter)
    return AdapterConfig(
        rank=_rank(config.get("r"), "r", file),
        alpha=_number(config.get("lora_alpha"), "lora_alpha", file),
        rank_pattern={
            key: _rank(value, f"rank_pattern of {key}", file)
            for key, value in _pattern(config, "rank_pattern", file).items()
        },
        alpha_pattern={
            key: _number(value, f"alpha_pattern of {key}", file)
            for key, value in _pattern(config, "alpha_pattern", file).items()
        },
        rslora=_flag(config, "use_rslora", file),
        dora=_flag(config, "use_dora", file),
        fan_in_fan_out=_flag(config, "fan_in_fan_out", file),
        token_rows=_token_rows(config.get("trainable_token_indices"), file),
        base=str(config.get("base_model_name_or_path") or ""),
    )


def _require_plain(config: Mapping[str, object], adapter: str) -> None:
    """Raises: AdapterNotMergeable, naming every setting that is refused."""
    refused = {
        key: _WHY_NOT.get(key, "this version of weightsmith does not know how to merge it")
        for key in sorted(config.keys() - _READ - _HARMLESS)
        if config[key]
    }
    init = config.get("init_lora_weights", True)
    if str(init).lower() not in _PLAIN_INITS:
        refused[f"init_lora_weights {init}"] = "it changes the base's weights before training"
    if refused:
        hint = None
        if any(key.startswith("init_lora_weights") for key in refused):
            hint = "save it as a plain LoRA: path_initial_model_for_weight_conversion in peft"
        raise AdapterNotMergeable(
            adapter=adapter,
            feature=" and ".join(refused),
            context=[f"{key}: {why}" for key, why in refused.items()],
            hint=hint,
        )


def _by_pattern(patterns: Mapping[str, Number], module: str, default: Number) -> Number:
    """The value of the first pattern that matches the end of a module's name."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def _pattern(config: Mapping[str, object], key: str, file: Path) -> dict[str, object]:
    patterns = config.get(key) or {}
    if not isinstance(patterns, dict):
        raise AdapterConfigInvalid(file=file, reason=f"{key} is not an object")
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            reason = f"{key} has {pattern!r}, which is no pattern: {error}"
            raise AdapterConfigInvalid(file=file, reason=reason) from error
    return patterns


def _rank(value: object, what: str, file: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST:
        raise AdapterConfigInvalid(file=file, reason=f"{what} is {value!r}, not a rank")
    return value


def _number(value: object, what: str, file: Path) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > _LARGEST:
        raise AdapterConfigInvalid(file=file, reason=f"{what} is {value!r}, not a number")
    return value


def _flag(config: Mapping[str, object], key: str, file: Path) -> bool:
    value = config.get(key) or False
    if not isinstance(value, bool):
        raise AdapterConfigInvalid(file=file, reason=f"{key} is {value!r}, not true or false")
    return value


def _token_rows(value: object, file: Path) -> dict[str, tuple[int, ...]]:
    by_module = value if isinstance(value, dict) else {"": value} if value else {}
    found = {module: _different_rows(rows) for module, rows in by_module.items()}
    if not all(found.values()):
        reason = f"trainable_token_indices is {value!r}, not a list of different rows"
        raise AdapterConfigInvalid(file=file, reason=reason)
    return found


def _different_rows(rows: object) -> tuple[int, ...]:
    """The rows, or nothing where these are no rows."""
    if not isinstance(rows, list) or any(type(row) is not int or row < 0 for row in rows):
        return ()
    return tuple(rows) if len(set(rows)) == len(rows) else ()

"""Read the ``adapter_config.json`` of an adapter.

Source: peft 0.21 ``LoraConfig`` and its like, ``get_pattern_key``.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar, get_args

from weightsmith.errors import AdapterConfigInvalid, AdapterNotMergeable
from weightsmith.formats.adapter_settings import KNOWN, PLAIN_INITS, WHY_NOT, AdapterKind
from weightsmith.formats.strict_json import parse_json
from weightsmith.patterns import Patterns, PatternUnusable

Number = TypeVar("Number", int, float)

_LARGEST: Final = 10**9
"""No rank and no alpha is larger, and arithmetic with them cannot overflow."""


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """The settings that decide what an adapter's tensors do."""

    file: Path
    """Where they stand, for messages."""
    kind: AdapterKind
    rank: int
    alpha: float
    rank_pattern: Patterns[int]
    alpha_pattern: Patterns[float]
    rslora: bool
    dora: bool
    fan_in_fan_out: bool
    """Whether the layers store their weight as (in, out), as GPT-2 does."""
    token_rows: Mapping[str, tuple[int, ...]]
    """Which rows the trainable tokens are, by module; under ``""`` those of any other module."""
    base: str
    """The model that the adapter was trained on, as the trainer named it; may be empty."""
    parameters: tuple[str, ...] = ()
    """Ends of the names of parameters that were trained themselves, and not as a layer's weight."""
    task_type: str = ""
    """Peft's name for the model's task: ``CAUSAL_LM``, ``SEQ_CLS``."""
    peft_version: str = ""
    """Empty before peft 0.18, which began to write it."""
    size: int = 0
    """AdaLoRA: the rank at the beginning. VB-LoRA: how many vectors are mixed. OFT: columns that
    are turned together, or 0.
    """
    terms: int = 0
    """OFT: of how many terms of a series a rotation is made; 0 where it is exact."""

    def rank_of(self, module: str) -> int:
        """The rank that the config gives to a module.

        Raises: AdapterConfigInvalid, if that takes too long to find.
        """
        return self._found(self.rank_pattern, module, self.rank)

    def scale_of(self, module: str) -> float:
        """What a module's product of factors is multiplied with.

        Source: Hu et al. 2021, section 4.1; with rsLoRA Kalajdzievski 2023.
        """
        alpha, rank = self._found(self.alpha_pattern, module, self.alpha), self.rank_of(module)
        return alpha / math.sqrt(rank) if self.rslora else alpha / rank

    def _found(self, patterns: Patterns[Number], module: str, default: Number) -> Number:
        try:
            return patterns.value(module, default)
        except PatternUnusable as error:
            raise AdapterConfigInvalid(file=self.file, reason=error) from error

    def rows_of(self, module: str) -> tuple[int, ...] | None:
        """The rows that a module's trainable tokens replace; None if the config names none."""
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
    kind = _kind(config.get("peft_type"), file, adapter)
    _require_plain(config, kind, adapter)
    lycoris = kind in {"LOHA", "LOKR"}
    ranked = kind not in {"IA3", "OFT"}
    scaled = kind not in {"IA3", "OFT", "VERA", "VBLORA"}
    # AdaLoRA's patterns say which of a layer's ranks are left, which its tensors show.
    patterns = {"alpha_pattern": {}, "rank_pattern": {}} if kind == "ADALORA" else config
    alpha = "alpha" if lycoris else "lora_alpha"
    sizes = {"ADALORA": "init_r", "VBLORA": "topk"}
    terms = config.get("num_cayley_neumann_terms") if config.get("use_cayley_neumann") else 0
    return AdapterConfig(
        file=file,
        kind=kind,
        rank=_rank(config.get("r"), "r", file) if ranked else 1,
        alpha=_number(config.get(alpha), alpha, file) if scaled else 1,
        rank_pattern=_pattern(patterns, "rank_pattern", file, _rank),
        alpha_pattern=_pattern(patterns, "alpha_pattern", file, _number),
        rslora=_flag(config, "use_rslora", file),
        dora=_flag(config, "use_dora", file),
        fan_in_fan_out=_flag(config, "fan_in_fan_out", file),
        token_rows=_token_rows(config.get("trainable_token_indices"), file),
        base=str(config.get("base_model_name_or_path") or ""),
        parameters=_names(config, "target_parameters", file),
        task_type=str(config.get("task_type") or ""),
        peft_version=str(config.get("peft_version") or ""),
        size=_rank(config.get(sizes[kind]), sizes[kind], file) if kind in sizes else 0,
        terms=_rank(terms, "num_cayley_neumann_terms", file) if terms != 0 else 0,
    )


def _kind(value: object, file: Path, adapter: str) -> AdapterKind:
    if value is None:
        raise AdapterConfigInvalid(file=file, reason="it has no peft_type")
    for kind in get_args(AdapterKind):
        if value == kind:
            return kind  # type: ignore[no-any-return]  # one of the literals
    raise AdapterNotMergeable(adapter=adapter, feature=f"peft_type {value}")


def _require_plain(config: Mapping[str, object], kind: AdapterKind, adapter: str) -> None:
    """Raises: AdapterNotMergeable, naming every setting that is refused."""
    refused = {
        key: WHY_NOT.get(key, "this version of weightsmith does not know how to merge it")
        for key in sorted(config.keys() - KNOWN[kind])
        if config[key]
    }
    if kind == "VERA" and config.get("save_projection") is False:
        refused["save_projection false"] = "its random projections are not in its file"
    init = config.get("init_lora_weights", True)
    if str(init).lower() not in PLAIN_INITS:
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


def _pattern(
    config: Mapping[str, object], key: str, file: Path, parse: Callable[[object, str, Path], Number]
) -> Patterns[Number]:
    """Raises: AdapterConfigInvalid."""
    patterns = config.get(key) or {}
    if not isinstance(patterns, dict):
        raise AdapterConfigInvalid(file=file, reason=f"{key} is not an object")
    values = {each: parse(value, f"{key} of {each}", file) for each, value in patterns.items()}
    try:
        return Patterns(values)
    except PatternUnusable as error:
        raise AdapterConfigInvalid(file=file, reason=f"{key} has {error}") from error


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


def _names(config: Mapping[str, object], key: str, file: Path) -> tuple[str, ...]:
    value = config.get(key) or []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise AdapterConfigInvalid(file=file, reason=f"{key} is {value!r}, not a list of names")
    return tuple(value)


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

"""Make a model's config agree with its weights."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from weightsmith.catalogue.float32 import float32_names
from weightsmith.checkpoint.quantised import quantiser_tensors
from weightsmith.errors import JsonInvalid
from weightsmith.formats.strict_json import parse_json
from weightsmith.formats.tensors import TORCH_NAMES, TensorInfo

_DTYPE_KEYS: Final = ("torch_dtype", "dtype")
"""The key of the dtype in transformers before 4.56, and since."""
_PART_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "vision": ("vision", "visual", "image"),
    "audio": ("audio", "speech"),
}
"""For parts of a config (``vision_config``) whose tensors have other words in their names: those
words.
"""


def true_config(
    raw: bytes, path: Path, outputs: Collection[TensorInfo], settings: Mapping[str, object]
) -> tuple[bytes, tuple[str, ...]]:
    """The config with `settings`, and with the dtype of most of the output's bytes.

    A part that states a dtype, such as ``vision_config``, gets that of its own tensors.
    Returns: the new content and the keys that changed; the same bytes if none did.
    Raises: JsonInvalid.
    """
    config = parse_json(raw, path, bom_allowed=True)
    if not isinstance(config, dict):
        raise JsonInvalid(file=path, reason="it is not an object")
    changed = list(_set(config, settings))
    if common := _common_dtype(outputs, config):
        keys = [key for key in _DTYPE_KEYS if key in config] or [_DTYPE_KEYS[0]]
        changed += _set(config, dict.fromkeys(keys, TORCH_NAMES[common]))
        for name, part in _parts(config):
            own = _common_dtype(list(_tensors_of(name, outputs)), config) or common
            stated = [key for key in _DTYPE_KEYS if part.get(key) is not None]
            changed += _set_one(part, dict.fromkeys(stated, TORCH_NAMES[own]))
    if not changed:
        return raw, ()
    content = (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
    return content, tuple(dict.fromkeys(changed))


def _set(config: dict[str, Any], settings: Mapping[str, object]) -> Iterator[str]:
    """Set these values wherever the config has them, at the top and in ``text_config``; those that
    it lacks are added at the top. Yields the keys that changed.
    """
    text = config.get("text_config")
    for key, value in settings.items():
        places = [place for place in (config, text) if isinstance(place, dict) and key in place]
        for place in places or [config]:
            yield from _set_one(place, {key: value})


def _set_one(place: dict[str, Any], settings: Mapping[str, object]) -> Iterator[str]:
    for key, value in settings.items():
        if place.get(key) != value:
            place[key] = value
            yield "dtype" if key in _DTYPE_KEYS else key


def _parts(config: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The configs inside a config, at any depth, with their keys; not that of a quantiser."""
    for key, part in config.items():
        if isinstance(part, dict) and key != "quantization_config":
            if key.endswith("_config") or "model_type" in part:
                yield key, part
            yield from _parts(part)


def _tensors_of(name: str, outputs: Iterable[TensorInfo]) -> Iterator[TensorInfo]:
    """The tensors that a part of the config describes, chosen by their names."""
    word = name.removesuffix("_config")
    words = _PART_WORDS.get(word, (word,))
    return (info for info in outputs if any(each in info.name for each in words))


def _common_dtype(outputs: Collection[TensorInfo], config: Mapping[str, Any]) -> str:
    """The float dtype of most of a model's bytes; empty if it has no floats.

    A quantiser's statistics, and what the architecture keeps in float32, count only if there is
    nothing else.
    """
    apart = quantiser_tensors(outputs, quantised="quantization_config" in config)
    kept = float32_names(config, "F16")
    held, others = Counter[str](), Counter[str]()
    for info in outputs:
        if info.dtype in TORCH_NAMES:
            own = info.name in apart or (info.dtype == "F32" and kept and kept.search(info.name))
            (others if own else held)[info.dtype] += info.nbytes
    return next((each.most_common(1)[0][0] for each in (held, others) if each), "")

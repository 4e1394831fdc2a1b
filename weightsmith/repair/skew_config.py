"""Detectors for settings of ``config.json`` that versions of transformers spell differently."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeGuard

from weightsmith.catalogue.repairs import KnownRepair
from weightsmith.repair.contents import CONFIG
from weightsmith.repair.faults import Edit, Fault
from weightsmith.repair.folder import Folder

_PARAMETERS: Final = "rope_parameters"
_SCALING: Final = "rope_scaling"
_THETA: Final = "rope_theta"
_LOCAL: Final = "rope_local_base_freq"
_PARTIAL: Final = "partial_rotary_factor"
_TEXT: Final = "text_config"
_NESTED_TYPES: Final = ("gemma3", "gemma3_text")
"""Families whose layers have two sets of rope settings; transformers 4 has a key for each."""


def rope_parameters_only(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """Rope settings under their new name only: transformers 4 uses its defaults."""
    found = {}
    for key, place in _places(folder):
        rope = place.get(_PARAMETERS)
        if _is_flat(rope) and _THETA in rope and not _differences(place):
            found[key] = _lacking_for_4(rope, place)
    found = {key: missing for key, missing in found.items() if missing}
    if found:
        told = {key: value for missing in found.values() for key, value in missing.items()}
        named = [f"{key} ({told[key]})" if key == _THETA else key for key in told]
        evidence = f"{' and '.join(named)} in {_PARAMETERS} only"
        yield Fault(known.id, CONFIG, evidence, tuple(_edits(found)))


def rope_nested(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """The same for Gemma 3, which has rope settings for each type of layer."""
    found = {}
    for key, place in _places(folder):
        rope = place.get(_PARAMETERS)
        said = place.get("model_type", folder.model_type)
        if not isinstance(said, str) or said not in _NESTED_TYPES:
            continue
        full, sliding = (
            rope.get(kind) if isinstance(rope, dict) else None
            for kind in ("full_attention", "sliding_attention")
        )
        if not _is_flat(full) or not _is_flat(sliding):
            continue
        missing = _lacking_for_4(full, place)
        if _LOCAL not in place:
            missing[_LOCAL] = sliding.get(_THETA)
        if missing and None not in (full.get(_THETA), sliding.get(_THETA)):
            found[key] = missing
    if found:
        evidence = f"{_THETA} and {_LOCAL} stand in rope_parameters only"
        yield Fault(known.id, CONFIG, evidence, tuple(_edits(found)))


def rope_twice(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """Rope settings under both names, and they differ: readers use one or the other."""
    for _, place in _places(folder):
        if differ := _differences(place):
            evidence = f"{'; '.join(differ)}: delete the one that is not meant"
            yield Fault(known.id, CONFIG, evidence, verdict=known.verdict)


def dtype_only(folder: Folder, known: KnownRepair) -> Iterator[Fault]:
    """The dtype under its new name only."""
    if not isinstance(folder.config.get("dtype"), str) or "torch_dtype" in folder.config:
        return
    found = {
        key: {"torch_dtype": place["dtype"]}
        for key, place in _places(folder)
        if isinstance(place.get("dtype"), str) and "torch_dtype" not in place
    }
    evidence = f"dtype is {folder.config['dtype']}, torch_dtype is missing"
    yield Fault(known.id, CONFIG, evidence, tuple(_edits(found)))


def _places(folder: Folder) -> Iterator[tuple[str, dict[str, Any]]]:
    """The config, and its part for text if it has one, each with its key."""
    yield "", folder.config
    nested = folder.config.get(_TEXT)
    if isinstance(nested, dict):
        yield _TEXT, nested


def _edits(found: Mapping[str, Mapping[str, Any]]) -> Iterator[Edit]:
    for key, values in found.items():
        if key:
            yield Edit(CONFIG, values, within=key)
        else:
            yield Edit(CONFIG, values)


def _is_flat(rope: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(rope, dict) and not any(isinstance(each, dict) for each in rope.values())


def _differences(place: Mapping[str, Any]) -> list[str]:
    """Where the two spellings of the rope settings contradict each other."""
    rope = place.get(_PARAMETERS)
    if not _is_flat(rope):
        return []
    differ = []
    if _THETA in place and _THETA in rope and place[_THETA] != rope[_THETA]:
        differ.append(f"{_THETA} is {place[_THETA]}, in {_PARAMETERS} {rope[_THETA]}")
    if _SCALING in place and _scaling(place[_SCALING]) != _scaling(rope):
        differ.append(f"{_SCALING} is not what {_PARAMETERS} says")
    return differ


def _lacking_for_4(rope: Mapping[str, Any], place: Mapping[str, Any]) -> dict[str, Any]:
    """Rope settings by the names that transformers 4 reads, as far as they are missing."""
    values: dict[str, Any] = {_THETA: rope.get(_THETA)}
    if rope.get("rope_type", "default") != "default":
        values[_SCALING] = {k: v for k, v in rope.items() if k not in {_THETA, _PARTIAL}}
    if _PARTIAL in rope:
        values[_PARTIAL] = rope[_PARTIAL]
    return {key: value for key, value in values.items() if key not in place}


def _scaling(value: object) -> dict[str, Any]:
    """Rope settings without theta, in one spelling."""
    said = dict(value) if isinstance(value, dict) else {}
    if "type" in said:
        said.setdefault("rope_type", said.pop("type"))
    said.pop("type", None)
    kept = {key: each for key, each in said.items() if key not in {_THETA, _PARTIAL}}
    return {} if kept.get("rope_type", "default") == "default" else kept

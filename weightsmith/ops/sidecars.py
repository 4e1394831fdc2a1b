"""Choose the files that travel beside the weights, and keep the config true to them."""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from weightsmith.catalogue.float32 import float32_names
from weightsmith.checkpoint.checkpoint import Checkpoint, embedding_rows
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.checkpoint.quantised import quantiser_tensors
from weightsmith.checkpoint.sidecars import CONFIG, TOKENIZER, VOCABULARY, matches
from weightsmith.errors import JsonInvalid, WeightsmithError
from weightsmith.formats.sniff import refuse_pointer
from weightsmith.formats.strict_json import parse_json
from weightsmith.formats.tensors import TORCH_NAMES, TensorInfo
from weightsmith.plan.model import SidecarPlan
from weightsmith.repair.detect import diagnose, mend

_DTYPE_KEYS: Final = ("torch_dtype", "dtype")
"""Transformers before and after 4.56 spell it differently."""


@dataclass(frozen=True, slots=True)
class Sidecars:
    """The files to publish beside the weights."""

    plans: tuple[SidecarPlan, ...]
    contents: dict[str, bytes]
    notes: tuple[str, ...]
    repairs: tuple[str, ...]
    """Ids of the faults that were repaired."""
    faults: tuple[str, ...]
    """Faults that are published as they are, as sentences."""


def choose_sidecars(
    sources: Mapping[str, Checkpoint], outputs: Sequence[TensorInfo], *, repair: bool
) -> Sidecars:
    """All files of the first source; of a second what the first lacks: the config, the vocabulary.

    `sources` are by role, the one whose files count first.

    The config's dtype is made to say what most of the output's bytes are. With `repair`, known
    faults of the tokenizer and config files are mended and proved; all else is verbatim.
    Raises: JsonInvalid, if the config is none.
    """
    origins, notes = _origins(sources)
    return publish_sidecars(sources, origins, outputs, notes=notes, repair=repair)


def publish_sidecars(
    sources: Mapping[str, Checkpoint],
    origins: Mapping[str, str],
    outputs: Sequence[TensorInfo],
    *,
    notes: tuple[str, ...] = (),
    settings: Mapping[str, object] | None = None,
    repair: bool = False,
) -> Sidecars:
    """The files in `origins` (name to role), the config made to say what the output is.

    `settings` are values that the config must have.
    Raises: JsonInvalid, if the config is none; LfsPointer for what was never fetched.
    """
    raw = {name: sources[role].read_sidecar(name) for name, role in sorted(origins.items())}
    for name, content in raw.items():
        refuse_pointer(content, sources[origins[name]].directory / name)
    true = dict(raw)
    changes: dict[str, list[str]] = {}
    if CONFIG[0] in true:
        source = sources[origins[CONFIG[0]]]
        true[CONFIG[0]], keys = true_config(raw[CONFIG[0]], source, outputs, settings or {})
        if keys:
            changes[CONFIG[0]] = [f"{' and '.join(keys)} made to say what the files hold"]
    mended, deleted, repairs, faults = _mended(true, outputs, repair=repair)
    for name in deleted:
        del true[name]
    for name in mended:
        changes.setdefault(name, []).append("repaired" if name in raw else "made")
    contents = dict(sorted((true | mended).items()))
    first = next(iter(sources))
    plans = tuple(
        SidecarPlan(
            name=name,
            role=origins.get(name, first),
            nbytes=len(content),
            digest=bytes_digest(content),
            changes=tuple(changes.get(name, ())),
        )
        for name, content in contents.items()
    )
    return Sidecars(plans, contents, notes, repairs, faults)


def _origins(sources: Mapping[str, Checkpoint]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The role that each file comes from, and a note where it is not the first."""
    first, *others = sources
    origins = dict.fromkeys(sources[first].sidecars, first)
    has_tokenizer = any(matches(name, TOKENIZER) for name in origins)
    has_vocabulary = any(matches(name, VOCABULARY) for name in origins)
    notes = []
    for role in others:
        there = sources[role].sidecars
        wanted = [CONFIG[0]] if CONFIG[0] not in origins else []
        if not has_vocabulary:
            patterns = VOCABULARY if has_tokenizer else TOKENIZER
            wanted += [name for name in there if matches(name, patterns)]
        taken = [name for name in wanted if name in there]
        if taken:
            origins |= dict.fromkeys(taken, role)
            notes.append(f"the {first} lacks {', '.join(taken)}: taken from the {role}")
    return origins, tuple(notes)


def _mended(
    files: dict[str, bytes], outputs: Sequence[TensorInfo], *, repair: bool
) -> tuple[dict[str, bytes], tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """New content by name, what goes, the ids of what is repaired, and the faults that stay."""
    try:
        diagnosis = diagnose(files, embedding_rows=embedding_rows(outputs))
        mended = mend(diagnosis) if repair and diagnosis.faults else None
    except WeightsmithError as error:
        # Weights can be right beside sidecars that cannot be repaired; the user is told.
        return {}, (), (), (str(error),)
    done = mended.faults if mended else ()
    stay = [each for each in diagnosis.faults if each not in done]
    faults = tuple(f"{fault.file}: {fault.evidence}" for fault in stay)
    ids = tuple(dict.fromkeys(fault.id for fault in done))
    return dict(mended.changed) if mended else {}, mended.deleted if mended else (), ids, faults


def true_config(
    raw: bytes, source: Checkpoint, outputs: Collection[TensorInfo], settings: Mapping[str, object]
) -> tuple[bytes, tuple[str, ...]]:
    """The config with `settings` and with the dtype that most of the output's bytes have, and what
    was changed; the same bytes where nothing was.

    Raises: JsonInvalid.
    """
    path = source.directory / CONFIG[0]
    config = parse_json(raw, path, bom_allowed=True)
    if not isinstance(config, dict):
        raise JsonInvalid(file=path, reason="it is not an object")
    true: dict[str, object] = dict(settings)
    if held := _common_dtype(outputs, config):
        true_name = TORCH_NAMES[held]
        keys = [key for key in _DTYPE_KEYS if key in config] or [_DTYPE_KEYS[0]]
        true |= dict.fromkeys(keys, true_name)
    # A model of several modalities keeps what its text part is in an object of its own.
    nested = config.get("text_config")
    places = [config, *([nested] if isinstance(nested, dict) else [])]
    changed = []
    for key, value in true.items():
        for place in [place for place in places if key in place] or [config]:
            if place.get(key) != value:
                place[key] = value
                changed.append("dtype" if key in _DTYPE_KEYS else key)
    if not changed:
        return raw, ()
    content = (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
    return content, tuple(dict.fromkeys(changed))


def _common_dtype(outputs: Collection[TensorInfo], config: Mapping[str, Any]) -> str:
    """The dtype of floats that holds most of a model's bytes, but for those that have a dtype of
    their own: a quantiser's statistics, and what the architecture keeps in float32. Empty where
    there are none.
    """
    floats = [info for info in outputs if info.dtype in TORCH_NAMES]
    apart = quantiser_tensors(outputs, quantised="quantization_config" in config)
    kept = float32_names(config, "F16")
    held, others = Counter[str](), Counter[str]()
    for info in floats:
        own = info.name in apart or (info.dtype == "F32" and kept and kept.search(info.name))
        (others if own else held)[info.dtype] += info.nbytes
    return next((each.most_common(1)[0][0] for each in (held, others) if each), "")

"""Choose the files that travel beside the weights, and keep the config true to them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.checkpoint.sidecars import CONFIG, TOKENIZER, VOCABULARY, matches
from weightsmith.errors import JsonInvalid
from weightsmith.formats.strict_json import parse_json
from weightsmith.formats.tensors import TORCH_NAMES, TensorInfo
from weightsmith.plan.model import SidecarPlan

_DTYPE_KEYS: Final = ("torch_dtype", "dtype")
"""Transformers before and after 4.56 spell it differently."""


@dataclass(frozen=True, slots=True)
class Sidecars:
    """The files to publish beside the weights."""

    plans: tuple[SidecarPlan, ...]
    contents: dict[str, bytes]
    notes: tuple[str, ...]


def choose_sidecars(delta: Checkpoint, base: Checkpoint, outputs: Iterable[TensorInfo]) -> Sidecars:
    """The delta's files verbatim; from the base what the delta lacks: the config, the vocabulary.

    The config's dtype is made to say what most of the output's bytes are.
    Raises: JsonInvalid, if the config is none.
    """
    chosen = dict.fromkeys(delta.sidecars, delta)
    notes = []
    has_tokenizer = any(matches(name, TOKENIZER) for name in chosen)
    has_vocabulary = any(matches(name, VOCABULARY) for name in chosen)
    wanted = [CONFIG[0]] if CONFIG[0] not in chosen else []
    if not has_vocabulary:
        patterns = VOCABULARY if has_tokenizer else TOKENIZER
        wanted += [name for name in base.sidecars if matches(name, patterns)]
    from_base = [name for name in wanted if name in base.sidecars]
    if from_base:
        chosen |= dict.fromkeys(from_base, base)
        notes.append(f"the delta lacks {', '.join(from_base)}: taken from the base")
    contents = {name: source.read_sidecar(name) for name, source in sorted(chosen.items())}
    changes: dict[str, str] = {}
    if CONFIG[0] in contents:
        raw = contents[CONFIG[0]]
        contents[CONFIG[0]] = true_config(raw, chosen[CONFIG[0]], outputs)
        if contents[CONFIG[0]] != raw:
            changes[CONFIG[0]] = "dtype made to say what the files hold"
    plans = tuple(
        SidecarPlan(
            name=name,
            role="delta" if chosen[name] is delta else "base",
            nbytes=len(content),
            digest=bytes_digest(content),
            changes=(changes[name],) if name in changes else (),
        )
        for name, content in contents.items()
    )
    return Sidecars(plans, contents, tuple(notes))


def true_config(raw: bytes, source: Checkpoint, outputs: Iterable[TensorInfo]) -> bytes:
    """The config with the dtype that most of the output's bytes have; the same bytes where it says
    so.

    Raises: JsonInvalid.
    """
    held: dict[str, int] = {}
    for info in outputs:
        if info.dtype in TORCH_NAMES:
            held[info.dtype] = held.get(info.dtype, 0) + info.nbytes
    path = source.directory / CONFIG[0]
    config = parse_json(raw, path, bom_allowed=True)
    if not isinstance(config, dict):
        raise JsonInvalid(file=path, reason="it is not an object")
    if not held:
        return raw
    true_name = TORCH_NAMES[max(held, key=lambda dtype: held[dtype])]
    keys = [key for key in _DTYPE_KEYS if key in config] or [_DTYPE_KEYS[0]]
    if all(config.get(key) == true_name for key in keys):
        return raw
    config |= dict.fromkeys(keys, true_name)
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()

"""A quantised model as the floats that it stands for, read without writing it."""

import json

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.content import Content
from weightsmith.checkpoint.sidecars import CONFIG
from weightsmith.checkpoint.table import SAFETENSORS
from weightsmith.engine.derived import Derived
from weightsmith.formats.safetensors_header import read_metadata
from weightsmith.formats.tensors import TORCH_NAMES
from weightsmith.plan.quantised.find import KEYS, find_quantised, quantisation_settings
from weightsmith.plan.quantised.weights import Quantised


def quantisation_of(checkpoint: Checkpoint) -> Quantised | None:
    """How a model is quantised, by its config, its headers and a few small tensors; None where its
    weights are floats.

    Raises: QuantisationInvalid, QuantisationUnknown.
    """
    infos = [tensor.info for tensor in checkpoint.tensors.values()]
    return find_quantised(checkpoint.label, checkpoint.config, infos, checkpoint.read_small)


def dequantised(checkpoint: Checkpoint, found: Quantised, dtype: str) -> Checkpoint:
    """The model with every quantised weight in `dtype`, a format code, and all else as it is; its
    config says nothing of quantisation any more.

    Memory: as the rules of `codecs.quantised`; nothing is kept of a weight but what it is packed
    in, where that lies the other way round.
    """
    infos = [tensor.info for tensor in checkpoint.tensors.values()]
    contents = {name: checkpoint.sidecar(name) for name in checkpoint.sidecars}
    if CONFIG[0] in contents:
        mode = contents[CONFIG[0]].mode
        contents[CONFIG[0]] = Content(_plain_config(checkpoint), mode=mode)
    derived = Derived(
        label=checkpoint.label,
        directory=checkpoint.directory,
        rules=found.plans(infos, dtype, "quantised"),
        inputs={"quantised": checkpoint},
        sidecars=contents,
    )
    derived.origin = checkpoint.origin
    return derived


def kept_metadata(checkpoint: Checkpoint) -> dict[str, str]:
    """What the files of a quantised model say beside their tensors, for all files of a copy of it;
    empty for any other model, and for one that is made by rules and has no files of its own.
    Torchao reads there which weights are quantised, and how.
    """
    if quantisation_settings(checkpoint.config) is None or checkpoint.rules:
        return {}
    found: dict[str, str] = {}
    for file in checkpoint.files:
        if file.name.endswith(SAFETENSORS):
            found = {**read_metadata(checkpoint.peek(file.name)), **found}
    return found


def dequantised_note(found: Quantised, dtype: str) -> str:
    """What a plan says of it."""
    left = f"; {len(found.statistics)} more of the quantiser's left out" if found.statistics else ""
    return (
        f"{len(found.weights)} quantised weights ({found}) become {TORCH_NAMES[dtype]}, and "
        f"quantization_config is removed from the config{left}"
    )


def _plain_config(checkpoint: Checkpoint) -> bytes:
    config = dict(checkpoint.config)
    text = config.get("text_config")
    if isinstance(text, dict):
        config["text_config"] = {key: value for key, value in text.items() if key not in KEYS}
    config = {key: value for key, value in config.items() if key not in KEYS}
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()

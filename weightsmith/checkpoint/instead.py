"""What lies in a directory in place of a model's weights, told by names, and what to do then."""

import fnmatch
from collections.abc import Iterable
from typing import Final

_KNOWN: Final = (
    (
        ("adapter_config.json", "adapter_model.*"),
        "it holds a LoRA adapter, which is no model without its base",
        "put it onto its base: weightsmith merge-lora --base SOURCE --lora {source} --target DIR",
    ),
    (
        ("delta.safetensors.index.json",),
        "it holds an exact delta, which is no model without its base",
        "put it onto its base: weightsmith apply-delta --base SOURCE --delta {source}",
    ),
    (
        ("consolidated.*.pth",),
        "it holds Meta's weights without their params.json",
        "copy params.json there; it lies beside the weights in Meta's download",
    ),
    (
        ("params.json",),
        "it holds Meta's params.json without the weights",
        "copy all consolidated.NN.pth files there; they lie beside it in Meta's download",
    ),
    (
        ("*.gguf", "ggml-*.bin", "*.ggml*.bin"),
        "it holds GGUF or GGML files, made for other programs and rounded as a rule",
        "take the model that they were made from, in safetensors or .bin files",
    ),
    (
        ("zero_to_fp32.py", "global_step*", "*_optim_states.pt"),
        "it holds the states of a DeepSpeed run, a part of the model a process",
        "join them first, in {source}: python zero_to_fp32.py . DIR",
    ),
    (
        ("pytorch_model_fsdp_*", "*.distcp", ".metadata"),
        "it holds the states of an FSDP run, a part of the model a process",
        "join them first: accelerate merge-weights {source} DIR",
    ),
    (
        ("tf_model*.h5", "flax_model*.msgpack"),
        "it holds weights for TensorFlow or Flax alone",
        "take a copy of the model in safetensors or .bin files",
    ),
)
"""Names of files or directories, what they tell, and what to do."""


def known_instead(names: Iterable[str], source: object) -> tuple[str, str] | None:
    """What these files and directories are, and a hint; None where that is not known."""
    there = list(names)
    for patterns, what, hint in _KNOWN:
        if any(fnmatch.filter(there, pattern) for pattern in patterns):
            return what, hint.format(source=source)
    return None

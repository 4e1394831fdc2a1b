"""What the names of a LoRA adapter's tensors mean.

Source: peft 0.21 ``get_peft_model_state_dict``, and the files that its releases since 0.2 wrote.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

PartKind = Literal[
    "lora_A",
    "lora_B",
    "lora_embedding_A",
    "lora_embedding_B",
    "lora_magnitude_vector",
    "lora_bias",
    "token_rows",
    "base_layer",
    "whole",
    "original",
]

_PREFIX: Final = "base_model.model."
_FACTOR: Final = re.compile(
    r"(?P<module>.+)\.(?P<kind>lora_(?:A|B|embedding_A|embedding_B|magnitude_vector))"
    r"(?:\.(?!(?:weight|bias)$)[^.]+)?(?:\.(?P<leaf>weight|bias))?"
)
_TOKEN_ROWS: Final = re.compile(r"(.+)\.token_adapter\.trainable_tokens_delta(?:\.[^.]+)?")


@dataclass(frozen=True, slots=True)
class Part:
    """What one tensor of an adapter is: how it changes which tensor of the base."""

    tensor: str
    kind: PartKind

    @property
    def module(self) -> str:
        """The tensor's name without its last word."""
        return self.tensor.rpartition(".")[0]


def parse_part(name: str) -> Part:
    """``base_model.model.lm_head.lora_A.weight`` -> ``lora_A`` of ``lm_head.weight``.

    Names may carry the prefix or not, and the adapter's own name (``lora_A.default.weight``) or
    not. What is no other kind is a tensor stored whole.
    """
    while name.startswith(_PREFIX):
        name = name.removeprefix(_PREFIX)
    if match := _FACTOR.fullmatch(name):
        if match["kind"] == "lora_B" and match["leaf"] == "bias":
            return Part(f"{match['module']}.bias", "lora_bias")
        kind: PartKind = match["kind"]  # type: ignore[assignment]  # the expression's own words
        return Part(f"{match['module']}.weight", kind)
    if match := _TOKEN_ROWS.fullmatch(name):
        return Part(f"{match[1]}.weight", "token_rows")
    for words in (".token_adapter.base_layer.", ".base_layer."):
        if words in name:
            return Part(name.replace(words, "."), "base_layer")
    if ".original_module." in name:
        return Part(name.replace(".original_module.", "."), "original")
    for words in (".modules_to_save.default.", ".modules_to_save."):
        name = name.replace(words, ".")
    return Part(name, "whole")

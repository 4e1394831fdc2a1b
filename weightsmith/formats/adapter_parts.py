"""Read from the name of an adapter's tensor what it is and which tensor of the base it changes.

Source: peft 0.21 ``get_peft_model_state_dict``, and the files that its releases since 0.2 wrote.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal, cast, get_args

FactorKind = Literal[
    "lora_A",
    "lora_B",
    "lora_E",
    "lora_embedding_A",
    "lora_embedding_B",
    "lora_magnitude_vector",
    "hada_w1_a",
    "hada_w1_b",
    "hada_w2_a",
    "hada_w2_b",
    "lokr_w1",
    "lokr_w1_a",
    "lokr_w1_b",
    "lokr_w2",
    "lokr_w2_a",
    "lokr_w2_b",
    "ia3_l",
    "oft_R",
    "vera_lambda_b",
    "vera_lambda_d",
    "vblora_logits_A",
    "vblora_logits_B",
]
"""Tensors that a layer's change is made of, by the names that peft gives them."""
SharedKind = Literal["vera_A", "vera_B", "vblora_vector_bank"]
"""Tensors that all layers' changes are made of."""
PartKind = (
    FactorKind | SharedKind | Literal["lora_bias", "token_rows", "base_layer", "whole", "original"]
)

_PREFIX: Final = "base_model.model."
_SPELT: Final = {"lora_down": "lora_A", "lora_up": "lora_B", "lora_a": "lora_A", "lora_b": "lora_B"}
"""Names of the factors in files of other programs than peft."""
_FACTOR: Final = re.compile(
    rf"(?P<module>.+)\.(?P<kind>{'|'.join((*get_args(FactorKind), *_SPELT))})"
    r"(?:\.(?!(?:weight|bias)$)[^.]+)?(?:\.(?P<leaf>weight|bias))?"
)
_SHARED: Final = re.compile(
    rf"(?:base_model\.)?(?P<kind>{'|'.join(get_args(SharedKind))})(?:\.[^.]+)?"
)
_TOKEN_ROWS: Final = re.compile(r"(.+)\.token_adapter\.trainable_tokens_delta(?:\.[^.]+)?")


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor of an adapter: which tensor of the base it changes, and how."""

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
    if match := _SHARED.fullmatch(name.removeprefix(_PREFIX)):
        return Part("", cast("SharedKind", match["kind"]))
    while name.startswith(_PREFIX):
        name = name.removeprefix(_PREFIX)
    if match := _FACTOR.fullmatch(name):
        if match["kind"] == "lora_B" and match["leaf"] == "bias":
            return Part(f"{match['module']}.bias", "lora_bias")
        kind = cast("FactorKind", _SPELT.get(match["kind"], match["kind"]))
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

"""The names of an adapter's tensors, as releases of peft and its users have written them."""

import pytest

from weightsmith.formats.adapter_parts import Part, parse_part

Q = "model.layers.0.self_attn.q_proj"
P = "base_model.model."


@pytest.mark.parametrize(
    "name, part",
    [
        (f"{P}{Q}.lora_A.weight", Part(f"{Q}.weight", "lora_A")),
        (f"{P}{Q}.lora_B.default.weight", Part(f"{Q}.weight", "lora_B")),
        (f"{Q}.lora_A.weight", Part(f"{Q}.weight", "lora_A")),
        (f"{P}{P}{Q}.lora_A.weight", Part(f"{Q}.weight", "lora_A")),
        (f"{P}{Q}.lora_B.bias", Part(f"{Q}.bias", "lora_bias")),
        (f"{P}{Q}.lora_B.my_task.bias", Part(f"{Q}.bias", "lora_bias")),
        (f"{P}{Q}.lora_magnitude_vector", Part(f"{Q}.weight", "lora_magnitude_vector")),
        (
            f"{P}{Q}.lora_magnitude_vector.default.weight",
            Part(f"{Q}.weight", "lora_magnitude_vector"),
        ),
        (f"{P}{Q}.lora_magnitude_vector.weight", Part(f"{Q}.weight", "lora_magnitude_vector")),
        (f"{P}wte.lora_embedding_A", Part("wte.weight", "lora_embedding_A")),
        (f"{P}wte.lora_embedding_B.default", Part("wte.weight", "lora_embedding_B")),
        (
            f"{P}wte.token_adapter.trainable_tokens_delta",
            Part("wte.weight", "token_rows"),
        ),
        (f"{P}wte.token_adapter.base_layer.weight", Part("wte.weight", "base_layer")),
        (f"{P}{Q}.base_layer.bias", Part(f"{Q}.bias", "base_layer")),
        (f"{P}lm_head.weight", Part("lm_head.weight", "whole")),
        (f"{P}lm_head.modules_to_save.weight", Part("lm_head.weight", "whole")),
        (f"{P}lm_head.modules_to_save.default.weight", Part("lm_head.weight", "whole")),
        (f"{P}lm_head.original_module.weight", Part("lm_head.weight", "original")),
    ],
)
def test_a_name_says_what_changes_which_tensor(name: str, part: Part) -> None:
    assert parse_part(name) == part


def test_a_parts_module_is_what_patterns_are_matched_with() -> None:
    assert parse_part(f"{P}{Q}.lora_A.weight").module == Q

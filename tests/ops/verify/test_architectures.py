"""The tables of tensors say what transformers itself builds from a config."""

from typing import Any

import pytest
import torch

from weightsmith.catalogue.architectures import expected_tensors, load_architectures

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "pad_token_id": 0,
}
FLAT_ONLY = {"llava", "shikra"}
"""Model types whose config transformers does not know in this form any more."""


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("extra", [{}, {"num_key_value_heads": 2}, {"head_dim": 16}])
@pytest.mark.parametrize(
    "model_type",
    sorted({t for each in load_architectures() for t in each.model_types} - FLAT_ONLY),
)
def test_names_and_shapes_are_those_of_transformers(
    model_type: str, extra: dict[str, int], tied: bool
) -> None:
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    # Without a number of its own, each model type has another default.
    heads = {"num_key_value_heads": 4, "head_dim": 8}
    make: Any = CONFIG_MAPPING[model_type]
    config = make(**SIZES, **heads | extra, tie_word_embeddings=tied)
    auto: Any = AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(config)
    built = {name: tuple(each.shape) for name, each in model.state_dict().items()}
    if tied:
        del built["lm_head.weight"]
    expected = expected_tensors({**config.to_dict(), "model_type": model_type})
    assert expected is not None
    assert expected.shapes == built
    assert expected.tied == tied


def test_config_without_optional_numbers_has_those_of_the_first_llama() -> None:
    sizes = {"model_type": "llama", **SIZES}
    plain = expected_tensors(sizes)
    full = expected_tensors({**sizes, "num_key_value_heads": 4, "head_dim": 8})
    assert plain == full
    assert expected_tensors({**sizes, "num_key_value_heads": None}) == full


@pytest.mark.parametrize(
    "name, has_head",
    [("MistralModel", False), ("MistralForCausalLM", True), ("MistralLMHeadModel", True)],
)
def test_a_model_without_its_head_is_promised_none(name: str, has_head: bool) -> None:
    expected = expected_tensors({"model_type": "mistral", **SIZES, "architectures": [name]})
    assert expected is not None
    assert ("lm_head.weight" in expected.shapes) == has_head


def test_config_of_several_models_and_of_an_unknown_one_promises_nothing() -> None:
    assert expected_tensors({"model_type": "llava", "text_config": {}}) is None
    assert expected_tensors({"model_type": "rwkv9", **SIZES}) is None
    assert expected_tensors({}) is None


def test_a_config_of_more_layers_than_memory_holds_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="num_hidden_layers is 1000000000"):
        expected_tensors({"model_type": "llama", **SIZES, "num_hidden_layers": 10**9})


def test_names_beyond_the_layers_of_the_config_are_told_from_other_names() -> None:
    expected = expected_tensors({"model_type": "llama", **SIZES})
    assert expected is not None
    names = [
        "model.layers.2.input_layernorm.weight",
        "model.layers.3.input_layernorm.weight",
        "model.layers.30.self_attn.q_proj.weight",
        "model.vision.layers.9.weight",
        "model.mm_projector.0.weight",
    ]
    assert expected.beyond(names) == names[1:3]

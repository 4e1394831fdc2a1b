"""What models keep in float32 is what the classes of transformers say."""

import importlib

import pytest

from tests.support.collect_float32 import kept_by_type
from weightsmith.catalogue.float32 import float32_names, load_float32

MODELS = ("deepseek_v3", "t5", "gpt_oss", "blip_2", "voxtral", "llama")


@pytest.mark.parametrize("model", MODELS)
def test_the_catalogue_says_what_the_installed_transformers_says(model: str) -> None:
    module = importlib.import_module(f"transformers.models.{model}.modeling_{model}")
    listed = {
        model_type: (entry.in_float16, entry.in_16_bits)
        for entry in load_float32()
        for model_type in entry.model_types
    }
    for model_type, names in kept_by_type([module]).items():
        assert listed[model_type] == names


@pytest.mark.parametrize(
    "model_type, dtype, name, kept",
    [
        ("deepseek_v3", "BF16", "model.layers.3.mlp.gate.e_score_correction_bias", True),
        ("of_nobody", "BF16", "model.layers.3.mlp.gate.e_score_correction_bias", True),
        ("deepseek_v3", "F32", "model.layers.3.mlp.gate.e_score_correction_bias", False),
        ("t5", "F16", "encoder.block.0.layer.1.DenseReluDense.wo.weight", True),
        ("t5", "BF16", "encoder.block.0.layer.1.DenseReluDense.wo.weight", False),
        ("t5", "F16", "shared.word_embeddings.weight", False),
        ("gpt_oss", "F16", "model.norm.weight", True),
        ("gpt_oss", "F16", "model.layers.0.normal.weight", False),
    ],
)
def test_names_are_whole_words_between_dots(
    model_type: str, dtype: str, name: str, kept: bool
) -> None:
    names = float32_names({"model_type": model_type}, dtype)
    assert bool(names and names.search(name)) is kept


def test_parts_of_a_config_count() -> None:
    config = {"model_type": "of_nobody", "text_config": {"model_type": "t5"}}
    names = float32_names(config, "F16")
    assert names is not None
    assert names.search("language_model.encoder.wo.weight")

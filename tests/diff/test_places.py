"""Layer and kind, read off the names that families of models use."""

import random

import pytest

from weightsmith.checkpoint.layers import Place, name_order, places

LLAMA = {
    "model.embed_tokens.weight": Place(None, "embed_tokens"),
    "model.layers.0.self_attn.q_proj.weight": Place(0, "self_attn.q_proj"),
    "model.layers.0.self_attn.q_proj.bias": Place(0, "self_attn.q_proj.bias"),
    "model.layers.10.input_layernorm.weight": Place(10, "input_layernorm"),
    "model.norm.weight": Place(None, "norm"),
    "lm_head.weight": Place(None, "lm_head"),
    "model": Place(None, "model"),
}
GPT2 = {
    "transformer.wte.weight": Place(None, "wte"),
    "transformer.h.3.attn.c_attn.weight": Place(3, "attn.c_attn"),
    "transformer.ln_f.bias": Place(None, "ln_f.bias"),
}
EXPERTS = {
    "model.layers.1.mlp.experts.0.w1.weight": Place(1, "mlp.experts.*.w1"),
    "model.layers.1.mlp.experts.63.w1.weight": Place(1, "mlp.experts.*.w1"),
    "model.layers.1.mlp.gate.weight": Place(1, "mlp.gate"),
}
VISION = {
    "language_model.model.layers.0.mlp.up_proj.weight": Place(0, "mlp.up_proj"),
    "language_model.model.layers.1.mlp.up_proj.weight": Place(1, "mlp.up_proj"),
    "language_model.lm_head.weight": Place(None, "language_model.lm_head"),
    "vision_tower.layers.0.mlp.up_proj.weight": Place(0, "vision_tower.layers.mlp.up_proj"),
    "projector.0.weight": Place(0, "projector"),
}
BARE = {
    "weight": Place(None, "weight"),
    "0": Place(0, "0"),
    "blocks.2": Place(2, "blocks"),
    "a.99999999999999999999.b": Place(None, "a.99999999999999999999.b"),
    "": Place(None, ""),
    "layers.².x": Place(None, "layers.².x"),
}


@pytest.mark.parametrize("model", [LLAMA, GPT2, EXPERTS, VISION, BARE])
def test_names_tell_layer_and_kind(model: dict[str, Place]) -> None:
    names = [*model]
    random.Random(0).shuffle(names)
    assert places(names) == model


def test_layer_2_stands_before_layer_10() -> None:
    names = ["b", "a.10.x", "a.2.x", "a.x", "a.2"]
    assert sorted(names, key=name_order) == ["a.x", "a.2", "a.2.x", "a.10.x", "b"]

"""Layer and kind, read off the names that families of models use."""

import random

import pytest

from weightsmith.checkpoint.layers import Position, name_order, positions

LLAMA = {
    "model.embed_tokens.weight": Position(None, "embed_tokens"),
    "model.layers.0.self_attn.q_proj.weight": Position(0, "self_attn.q_proj"),
    "model.layers.0.self_attn.q_proj.bias": Position(0, "self_attn.q_proj.bias"),
    "model.layers.10.input_layernorm.weight": Position(10, "input_layernorm"),
    "model.norm.weight": Position(None, "norm"),
    "lm_head.weight": Position(None, "lm_head"),
    "model": Position(None, "model"),
}
GPT2 = {
    "transformer.wte.weight": Position(None, "wte"),
    "transformer.h.3.attn.c_attn.weight": Position(3, "attn.c_attn"),
    "transformer.ln_f.bias": Position(None, "ln_f.bias"),
}
EXPERTS = {
    "model.layers.1.mlp.experts.0.w1.weight": Position(1, "mlp.experts.*.w1"),
    "model.layers.1.mlp.experts.63.w1.weight": Position(1, "mlp.experts.*.w1"),
    "model.layers.1.mlp.gate.weight": Position(1, "mlp.gate"),
}
VISION = {
    "language_model.model.layers.0.mlp.up_proj.weight": Position(0, "mlp.up_proj"),
    "language_model.model.layers.1.mlp.up_proj.weight": Position(1, "mlp.up_proj"),
    "language_model.lm_head.weight": Position(None, "language_model.lm_head"),
    "vision_tower.layers.0.mlp.up_proj.weight": Position(0, "vision_tower.layers.mlp.up_proj"),
    "projector.0.weight": Position(0, "projector"),
}
BARE = {
    "weight": Position(None, "weight"),
    "0": Position(0, "0"),
    "blocks.2": Position(2, "blocks"),
    "a.99999999999999999999.b": Position(None, "a.99999999999999999999.b"),
    "": Position(None, ""),
    "layers.².x": Position(None, "layers.².x"),
}


@pytest.mark.parametrize("model", [LLAMA, GPT2, EXPERTS, VISION, BARE])
def test_names_tell_layer_and_kind(model: dict[str, Position]) -> None:
    names = [*model]
    random.Random(0).shuffle(names)
    assert positions(names) == model


def test_layer_2_stands_before_layer_10() -> None:
    names = ["b", "a.10.x", "a.2.x", "a.x", "a.2"]
    assert sorted(names, key=name_order) == ["a.x", "a.2", "a.2.x", "a.10.x", "b"]

"""A cast leaves what a quantiser owns, and what an architecture keeps on purpose, and says so."""

import pytest

from weightsmith.formats.tensors import TensorInfo
from weightsmith.plan.casts import plan_casting

MATRIX = (64, 64)
FP8 = [
    TensorInfo("model.layers.0.mlp.up_proj.weight", "F8_E4M3", MATRIX),
    TensorInfo("model.layers.0.mlp.up_proj.weight_scale_inv", "F32", (1, 1)),
]
BNB = [
    TensorInfo("model.layers.0.mlp.up_proj.weight", "U8", (2048, 1)),
    TensorInfo("model.layers.0.mlp.up_proj.weight.absmax", "F32", (64,)),
    TensorInfo("model.layers.0.mlp.up_proj.weight.quant_map", "F32", (16,)),
    TensorInfo("model.layers.0.mlp.up_proj.weight.nested_absmax", "F32", (1,)),
    TensorInfo("model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4", "U8", (80,)),
]
GPTQ = [
    TensorInfo("model.layers.0.mlp.up_proj.qweight", "I32", (8, 64)),
    TensorInfo("model.layers.0.mlp.up_proj.qzeros", "I32", (1, 8)),
    TensorInfo("model.layers.0.mlp.up_proj.scales", "F32", (1, 64)),
    TensorInfo("model.layers.0.mlp.up_proj.g_idx", "I32", (64,)),
]
PACKED = [
    TensorInfo("model.layers.0.mlp.up_proj.weight_packed", "I32", (64, 8)),
    TensorInfo("model.layers.0.mlp.up_proj.weight_scale", "F32", (64, 1)),
    TensorInfo("model.layers.0.mlp.up_proj.weight_shape", "I64", (2,)),
    TensorInfo("model.layers.0.self_attn.k_scale", "F32", (1,)),
]
EXPERTS = [
    TensorInfo("model.layers.0.mlp.experts.gate_up_proj", "F8_E4M3", (4, 64, 64)),
    TensorInfo("model.layers.0.mlp.experts.gate_up_proj_scale_inv", "F32", (4, 1, 1)),
]
HQQ = [
    TensorInfo("model.layers.0.mlp.up_proj.W_q", "U8", MATRIX),
    TensorInfo("model.layers.0.mlp.up_proj.scale", "F32", (64, 1)),
    TensorInfo("model.layers.0.mlp.up_proj.zero", "F32", (64, 1)),
]
PLAIN = [
    TensorInfo("model.norm.weight", "F32", (64,)),
    TensorInfo("model.layers.0.mlp.up_proj.bias", "F32", (64,)),
]


@pytest.mark.parametrize("quantised", [FP8, BNB, GPTQ, PACKED, EXPERTS, HQQ])
def test_what_a_quantiser_owns_keeps_its_dtype(quantised: list[TensorInfo]) -> None:
    casting = plan_casting({}, [*quantised, *PLAIN], "BF16", everything=True)
    assert [casting.dtype_of(info) for info in quantised] == [info.dtype for info in quantised]
    assert [casting.dtype_of(info) for info in PLAIN] == ["BF16", "BF16"]
    assert "the quantiser's statistics are not cast: " in casting.notes[0]


def test_a_model_that_nobody_quantised_is_cast_whole() -> None:
    infos = [
        *PLAIN,
        TensorInfo("vision.scale", "F32", (64,)),
        TensorInfo("attention.k_scale", "F32", (1,)),
        TensorInfo("bn.weight", "F32", (64,)),
        TensorInfo("bn.running_mean", "F32", (64,)),
        TensorInfo("bn.num_batches_tracked", "I64", ()),
        TensorInfo("embeddings.position_ids", "I64", (1, 64)),
        TensorInfo("embeddings.gamma", "F32", (64,)),
    ]
    casting = plan_casting({}, infos, "BF16")
    assert not casting.kept
    assert not casting.notes


def test_what_the_architecture_keeps_in_float32_is_cast_only_with_everything() -> None:
    bias = TensorInfo("model.layers.3.mlp.gate.e_score_correction_bias", "F32", (256,))
    config = {"model_type": "deepseek_v3"}
    casting = plan_casting(config, [bias, *PLAIN], "BF16")
    assert casting.dtype_of(bias) == "F32"
    (note,) = casting.notes
    assert "the architecture keeps them so on purpose" in note
    assert note.endswith(": 1 e_score_correction_bias (F32)")
    assert plan_casting(config, [bias], "BF16", everything=True).dtype_of(bias) == "BF16"


def test_widening_is_asked_of_all_that_the_architecture_keeps() -> None:
    bias = TensorInfo("model.layers.3.mlp.gate.e_score_correction_bias", "BF16", (256,))
    assert plan_casting({"model_type": "deepseek_v3"}, [bias], "F32").dtype_of(bias) == "F32"


def test_without_a_cast_nothing_is_said() -> None:
    assert plan_casting({"model_type": "t5"}, [*FP8, *PLAIN], "").notes == ()

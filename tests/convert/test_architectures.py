"""Other families than LLaMA: made by transformers, written anew, and loaded by it again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.folders import assert_same_bits, bits
from weightsmith.errors import ModelGivenAsDelta
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.convert import convert


def falcon() -> Any:
    """Multi-query attention, fused q, k and v, tied embeddings."""
    from transformers import FalconConfig, FalconForCausalLM

    return FalconForCausalLM(
        FalconConfig(vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    )


def gpt2() -> Any:
    """Transposed matrices, fused attention, tied embeddings, biases."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    )


def mistral() -> Any:
    """Grouped queries."""
    from transformers import MistralConfig, MistralForCausalLM

    return MistralForCausalLM(MistralConfig(**SIZES, num_key_value_heads=2))


def qwen2() -> Any:
    """Biases on q, k and v, tied embeddings."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(**SIZES, num_key_value_heads=2, tie_word_embeddings=True))


def mixtral() -> Any:
    """A mixture of experts, stored expert by expert."""
    from transformers import MixtralConfig, MixtralForCausalLM

    return MixtralForCausalLM(
        MixtralConfig(**SIZES, num_key_value_heads=2, num_local_experts=3, num_experts_per_tok=2)
    )


SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
FAMILIES = [falcon, gpt2, mistral, qwen2, mixtral]
Make = Callable[[], Any]


def saved(make: Make, folder: Path, seed: int) -> Any:
    """A model of random float16 weights, saved by transformers."""
    torch.manual_seed(seed)
    model = make().half()
    model.save_pretrained(folder)
    return model


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    """The weights as transformers loads them, once it has found every one and no other."""
    from transformers import AutoModelForCausalLM

    found: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", output_loading_info=True
    )
    model, report = found
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return dict(model.state_dict())


@pytest.mark.parametrize("make", FAMILIES)
def test_a_model_of_any_family_is_written_anew(make: Make, tmp_path: Path) -> None:
    model = saved(make, tmp_path / "in", 0)
    convert(tmp_path / "in", tmp_path / "out", max_shard_nbytes=20_000)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    assert_same_bits(loaded(tmp_path / "out"), model.state_dict())


@pytest.mark.parametrize("make", FAMILIES)
def test_old_bin_files_of_any_family_are_written_anew(make: Make, tmp_path: Path) -> None:
    model = saved(make, tmp_path / "in", 0)
    from safetensors.torch import load_file

    weights = load_file(tmp_path / "in" / "model.safetensors")
    tied = {n: t for n, t in model.state_dict().items() if n not in weights and "lm_head" in n}
    (tmp_path / "in" / "model.safetensors").unlink()
    # Old releases of transformers saved tied matrices under both names, as views of one storage.
    shared = next((n for n in weights if n.endswith(("wte.weight", "embed_tokens.weight"))), None)
    both = weights | (dict.fromkeys(tied, weights[shared]) if shared else {})
    torch.save(both, tmp_path / "in" / "pytorch_model.bin")
    convert(tmp_path / "in", tmp_path / "out")
    assert_same_bits(loaded(tmp_path / "out"), model.state_dict())


@pytest.mark.parametrize("make", FAMILIES)
def test_a_cast_of_any_family_is_transformers_own(make: Make, tmp_path: Path) -> None:
    model = saved(make, tmp_path / "in", 0)
    convert(tmp_path / "in", tmp_path / "out", dtype="bfloat16")
    expected = {n: t.to(torch.bfloat16) for n, t in model.state_dict().items()}
    assert_same_bits(loaded(tmp_path / "out"), expected)


@pytest.mark.parametrize("make", FAMILIES)
def test_an_additive_delta_of_any_family_is_applied(make: Make, tmp_path: Path) -> None:
    base = saved(make, tmp_path / "base", 0).state_dict()
    target = saved(make, tmp_path / "target", 1).state_dict()
    delta = saved(make, tmp_path / "delta", 2)
    names = delta.state_dict().keys()
    delta.load_state_dict({n: target[n] - base[n] for n in names})
    delta.save_pretrained(tmp_path / "delta")
    apply_delta(tmp_path / "base", tmp_path / "delta", target=tmp_path / "out")
    found = loaded(tmp_path / "out")
    assert found.keys() == base.keys()
    for name, tensor in found.items():
        assert torch.equal(bits(tensor), bits(base[name] + (target[name] - base[name]))), name


def test_a_model_of_another_family_given_as_delta_is_told(tmp_path: Path) -> None:
    saved(mistral, tmp_path / "base", 0)
    saved(mistral, tmp_path / "delta", 1)
    with pytest.raises(ModelGivenAsDelta):
        apply_delta(tmp_path / "base", tmp_path / "delta", target=tmp_path / "out")

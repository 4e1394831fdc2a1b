"""A model in memory is filled from a source, and is what reading its files would have made."""

import importlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import weightsmith
from tests.support.adapters import make_llama
from tests.support.expert_models import MODELS
from weightsmith.errors import BuffersUnset, DeltaInvalid, ModelDiffers, TiedDiffer, WrongBase


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A base with two deltas on it, and the model that they give."""
    folder = tmp_path_factory.mktemp("chain")
    models = [make_llama(folder / f"m{n}", dtype=torch.bfloat16, seed=n) for n in range(3)]
    for number in (1, 2):
        weightsmith.make_delta(models[number - 1], models[number], folder / f"d{number}")
    return f"{models[0]}+{folder / 'd1'}+{folder / 'd2'}", models[2]


def llama(kind: str = "LlamaForCausalLM") -> Any:
    """A class of transformers, which takes too long to import for those who only collect tests."""
    return getattr(importlib.import_module("transformers"), kind)


def empty(folder: Path, kind: str = "LlamaForCausalLM", **settings: Any) -> Any:
    config = llama("LlamaConfig").from_pretrained(folder, **settings)
    with torch.device("meta"):
        return llama(kind)._from_config(config, dtype=torch.bfloat16).eval()


def real(folder: Path) -> Any:
    config = llama("LlamaConfig").from_pretrained(folder)
    return llama()._from_config(config, dtype=torch.float32)


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(torch.arange(1, 9)[None])[0]
    return found


def test_a_model_without_memory_is_filled_with_what_a_chain_gives(chain: tuple[str, Path]) -> None:
    source, written = chain
    model = empty(written)
    loaded = weightsmith.load_into(model, source)
    read = llama().from_pretrained(written, dtype=torch.bfloat16)
    assert torch.equal(logits(model), logits(read))
    assert set(loaded.names) == set(load_file(written / "model.safetensors"))
    assert not loaded.cast
    assert not loaded.unused
    assert all(each.device.type == "cpu" for each in [*model.parameters(), *model.buffers()])


def test_a_model_with_memory_keeps_it_and_its_dtype(chain: tuple[str, Path]) -> None:
    source, written = chain
    model = real(written)
    places = {name: each.data_ptr() for name, each in model.named_parameters()}
    loaded = weightsmith.load_into(model, source)
    assert places == {name: each.data_ptr() for name, each in model.named_parameters()}
    assert len(loaded.cast) == len(loaded.names)
    for name, tensor in load_file(written / "model.safetensors").items():
        assert torch.equal(model.state_dict()[name], tensor.float())


def test_a_body_is_filled_from_a_model_with_a_head_and_what_is_left_is_named(
    chain: tuple[str, Path],
) -> None:
    source, written = chain
    model = empty(written, "LlamaModel")
    with pytest.raises(ModelDiffers, match=r"1 tensor") as caught:
        weightsmith.load_into(model, source)
    assert caught.value.exit_code == 7
    assert caught.value.context == ("the model has no place for lm_head.weight",)
    assert all(each.device.type == "meta" for each in model.parameters())
    loaded = weightsmith.load_into(model, source, strict=False)
    assert loaded.unused == ("lm_head.weight",)
    expected = llama("LlamaModel").from_pretrained(written, dtype=torch.bfloat16)
    assert torch.equal(logits(model), logits(expected))


def test_shared_weights_are_filled_once_and_must_agree(
    chain: tuple[str, Path], tmp_path: Path
) -> None:
    _, written = chain
    tensors = load_file(written / "model.safetensors")
    model = empty(written, tie_word_embeddings=True)
    with pytest.raises(TiedDiffer, match=r"lm_head"):
        weightsmith.load_into(model, written)
    (tmp_path / "tied").mkdir()
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "tied" / "model.safetensors")
    model = empty(written, tie_word_embeddings=True)
    weightsmith.load_into(model, tmp_path / "tied")
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_what_a_model_lacks_or_has_in_another_shape_is_named_and_nothing_filled(
    tmp_path: Path,
) -> None:
    linear = nn.Linear(2, 2)
    model = nn.ModuleDict({"a": linear, "lm_head": nn.Linear(3, 5, bias=False)})
    before = linear.weight.clone()
    (tmp_path / "m").mkdir()
    weights = {"a.weight": torch.ones(2, 2), "lm_head.weight": torch.ones(2, 2)}
    save_file(weights, tmp_path / "m" / "model.safetensors")
    with pytest.raises(ModelDiffers) as caught:
        weightsmith.load_into(model, tmp_path / "m")
    assert caught.value.context == (
        "a.bias is not there",
        "lm_head.weight has the shape [2, 2], not [5, 3]",
    )
    assert torch.equal(linear.weight, before)


def test_a_buffer_that_nothing_computes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    save_file({"weight": torch.ones(2, 2)}, tmp_path / "m" / "model.safetensors")
    with torch.device("meta"):
        model = nn.Linear(2, 2, bias=False)
        model.register_buffer("scale", torch.ones(2), persistent=False)
    with pytest.raises(BuffersUnset) as caught:
        weightsmith.load_into(model, tmp_path / "m")
    assert caught.value.context == ("scale",)


class Engine:
    """Takes weights as inference engines do: from an iterator, the three of attention as one."""

    def __init__(self) -> None:
        self.parameters: dict[str, Tensor] = {}

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in weights:
            for part in ("q_proj", "k_proj", "v_proj"):
                if part in name:
                    fused = name.replace(part, "qkv_proj")
                    parts.setdefault(fused, {})[part] = tensor.clone()
                    break
            else:
                self.parameters[name] = tensor.clone()
        for name, each in parts.items():
            self.parameters[name] = torch.cat([each["q_proj"], each["k_proj"], each["v_proj"]])
        return set(self.parameters)


def test_an_engine_takes_a_chain_from_the_iterator(chain: tuple[str, Path]) -> None:
    source, written = chain
    engine = Engine()
    with weightsmith.open_checkpoint(source) as checkpoint:
        loaded = engine.load_weights(checkpoint.iter_tensors())
    held = load_file(written / "model.safetensors")
    fused = "model.layers.0.self_attn.qkv_proj.weight"
    assert fused in loaded
    assert torch.equal(
        engine.parameters[fused],
        torch.cat([held[fused.replace("qkv", part)] for part in "qkv"]),
    )
    assert torch.equal(engine.parameters["lm_head.weight"], held["lm_head.weight"])


def test_what_is_yielded_was_held_against_its_digest(tmp_path: Path) -> None:
    """One bit of a base of several spans is another, which no header tells."""
    big = torch.randn(1500, 1500)
    for name, offset in (("base", 0.0), ("target", 0.5)):
        (tmp_path / name).mkdir()
        weights = {"big": big + offset, "small": torch.full((4,), offset)}
        save_file(weights, tmp_path / name / "model.safetensors")
    weightsmith.make_delta(tmp_path / "base", tmp_path / "target", tmp_path / "delta")
    source = f"{tmp_path / 'base'}+{tmp_path / 'delta'}"

    def read() -> Iterator[tuple[str, Tensor]]:
        with weightsmith.open_checkpoint(source) as checkpoint:
            yield from checkpoint.iter_tensors()

    found = dict(read())
    assert torch.equal(found["big"], big + 0.5)
    raw = bytearray((tmp_path / "base" / "model.safetensors").read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "base" / "model.safetensors").write_bytes(raw)
    with pytest.raises((WrongBase, DeltaInvalid)):
        list(read())
    model = nn.ParameterDict({"big": torch.zeros(1500, 1500), "small": torch.zeros(4)})
    with pytest.raises((WrongBase, DeltaInvalid)):
        weightsmith.load_into(model, source)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("family", MODELS)
def test_experts_that_transformers_stacks_are_those_that_it_would_load(
    family: str, tmp_path: Path
) -> None:
    folder = MODELS[family].make(tmp_path / "moe", dtype=torch.bfloat16)
    read = MODELS[family].load(folder, torch.bfloat16)
    with torch.device("meta"):
        model = type(read)._from_config(read.config, dtype=torch.bfloat16)
    loaded = weightsmith.load_into(model, folder)
    expected, found = read.state_dict(), model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], each) for name, each in expected.items())
    assert set(loaded.names) == set(load_file(folder / "model.safetensors"))
    assert not loaded.unused


def test_an_expert_that_is_missing_or_of_another_size_leaves_the_model_as_it_was(
    tmp_path: Path,
) -> None:
    family = MODELS["qwen3_moe"]
    folder = family.make(tmp_path / "moe", dtype=torch.bfloat16)
    model = family.load(folder, torch.bfloat16)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    tensors = load_file(folder / "model.safetensors")
    last = max(name for name in tensors if name.endswith("down_proj.weight"))
    for wrong, said in (
        (None, "experts.down_proj of [2, "),
        (torch.zeros(3, 5, dtype=torch.bfloat16), "make no model.layers.0.mlp.experts.down_proj"),
    ):
        others = {name: each for name, each in tensors.items() if name != last}
        damaged = others if wrong is None else {**others, last: wrong}
        save_file(damaged, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelDiffers) as caught:
            weightsmith.load_into(model, folder)
        assert any(said in each for each in caught.value.context), caught.value.context
    after = model.state_dict()
    assert all(torch.equal(each, after[name]) for name, each in before.items())

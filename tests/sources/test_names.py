"""Names without what training puts around them: where they fit then, said, or refused."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from weightsmith.checkpoint.opening import open_checkpoint
from weightsmith.engine.target_files import originals_of
from weightsmith.errors import NamesAmbiguous
from weightsmith.sources.names import with_own_names
from weightsmith.sources.recognise import open_lora, open_model

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 4,
    "hidden_size": 2,
    "intermediate_size": 2,
    "num_attention_heads": 1,
    "num_hidden_layers": 1,
}
OWN = ("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "lm_head.weight")


def model(folder: Path, names: Sequence[str], config: dict[str, object] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({name: torch.ones(2) for name in names}, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def names_of(folder: Path) -> list[str]:
    return sorted(open_model(folder).tensors)


@pytest.mark.parametrize("config", [LLAMA, None], ids=["config", "none"])
@pytest.mark.parametrize(
    "spelt",
    [
        "module.{}",
        "_orig_mod.{}",
        "module._orig_mod.{}",
        "_fsdp_wrapped_module.{}",
        "_fsdp_wrapped_module._checkpoint_wrapped_module.{}",
        "model.{}",
        "module.model.{}",
    ],
)
def test_what_stands_before_all_names_is_left_out_and_said(
    tmp_path: Path, spelt: str, config: dict[str, object] | None
) -> None:
    folder = model(tmp_path / "m", [spelt.format(name) for name in OWN], config)
    assert names_of(folder) == sorted(OWN)
    (note,) = [note for note in open_model(folder).notes if "training put there" in note]
    assert note.startswith("3 names read without ")
    assert not originals_of(open_model(folder)).headers  # the file has other names


@pytest.mark.parametrize("word", ["_orig_mod", "_checkpoint_wrapped_module"])
def test_words_that_no_model_uses_go_from_within_names(tmp_path: Path, word: str) -> None:
    inner = [OWN[0], f"model.layers.0.{word}.self_attn.q_proj.weight", OWN[2]]
    assert names_of(model(tmp_path / "m", inner)) == sorted(OWN)


def test_module_goes_from_within_names_where_the_config_then_fits(tmp_path: Path) -> None:
    inner = [OWN[0], "model.layers.0.module.self_attn.q_proj.weight", OWN[2]]
    assert names_of(model(tmp_path / "m", inner, LLAMA)) == sorted(OWN)
    assert names_of(model(tmp_path / "n", inner)) == sorted(inner)


@pytest.mark.parametrize("before", ["net.", "policy.actor.", "module.net._orig_mod."])
def test_a_scripts_own_words_go_where_the_config_then_fits(tmp_path: Path, before: str) -> None:
    names = [f"{before}{name}" for name in OWN]
    folder = model(tmp_path / "m", names, LLAMA)
    assert names_of(folder) == sorted(OWN)
    word = before.rstrip(".").split(".")[-1]
    assert any(f"{word}." in note for note in open_model(folder).notes)


@pytest.mark.parametrize("before", ["", "module.", "agent."])
def test_a_word_before_the_models_names_alone_goes_and_what_stands_beside_is_said(
    tmp_path: Path, before: str
) -> None:
    names = [
        *(f"{before}pretrained_model.{name}" for name in OWN),
        f"{before}v_head.summary.weight",
    ]
    folder = model(tmp_path / "m", names, LLAMA)
    assert names_of(folder) == sorted([*OWN, "v_head.summary.weight"])
    (note,) = [note for note in open_model(folder).notes if "training put there" in note]
    assert "pretrained_model." in note
    assert note.endswith("; not of its model, and kept as they are: v_head.summary.weight")


def test_of_two_models_in_one_output_none_is_chosen(tmp_path: Path) -> None:
    names = [f"{word}.{name}" for word in ("policy", "reference") for name in OWN]
    assert names_of(model(tmp_path / "m", names, LLAMA)) == sorted(names)


def test_without_a_config_names_of_which_only_some_share_a_word_stay(tmp_path: Path) -> None:
    names = [*(f"net.{name}" for name in OWN), "critic.weight"]
    assert names_of(model(tmp_path / "m", names)) == sorted(names)


@pytest.mark.parametrize(
    "names",
    [
        OWN,
        ("model.embed_tokens.weight", "model.norm.weight"),  # a model without a head, or a tied one
        ("module.a.weight", "b.weight"),
        ("encoder.module.weight", "decoder.weight"),
    ],
)
@pytest.mark.parametrize("config", [LLAMA, {"model_type": "other"}, None])
def test_names_that_may_be_the_models_own_stay(
    tmp_path: Path, names: Sequence[str], config: dict[str, object] | None
) -> None:
    assert names_of(model(tmp_path / "m", names, config)) == sorted(names)


def test_two_tensors_that_would_share_a_name_are_refused(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", [*OWN, f"_orig_mod.{OWN[0]}"])
    with pytest.raises(NamesAmbiguous, match="without _orig_mod") as caught:
        open_model(folder)
    assert caught.value.exit_code == 7


def test_a_base_tells_where_there_is_no_config(tmp_path: Path) -> None:
    names = ["model.embed.weight", "model.out.weight"]
    checkpoint = open_checkpoint(model(tmp_path / "m", names))
    assert sorted(with_own_names(checkpoint).tensors) == names
    own = with_own_names(checkpoint, {"embed.weight", "out.weight"})
    assert sorted(own.tensors) == ["embed.weight", "out.weight"]
    assert own.read_small("out.weight") == checkpoint.read_small("model.out.weight")


def test_a_damaged_config_is_left_to_whoever_needs_it(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", [f"module.{name}" for name in OWN])
    (folder / "config.json").write_text("{")
    assert names_of(folder) == sorted(OWN)


def test_adapters_have_their_names_too(tmp_path: Path) -> None:
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    folder = tmp_path / "lora"
    folder.mkdir()
    save_file({f"_orig_mod.{name}": torch.ones(2, 2)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")
    assert list(open_lora(folder).tensors) == [name]

"""Which tensors are written, under which names, and whose config lies beside them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.training_cases import LEFT
from weightsmith.errors import NamesNotConfig, NoWeights, ShapesNotConfig
from weightsmith.ops.combine import plan_combine
from weightsmith.ops.convert import convert, plan_convert

CONFIG = LEFT / "fsdp2_hsdp/ckpt/huggingface"
DCP = LEFT / "dcp_plain_w4/ckpt"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with a model of the same shapes, and one tensor more."""
    target = tmp_path / "base"
    convert(LEFT / "fsdp2_hsdp/ckpt", target)
    (target / "weightsmith.json").unlink()
    tensors = load_file(target / "model.safetensors")
    extra = {"mtp.fc.weight": torch.ones(3, 3, dtype=torch.bfloat16)}
    save_file({**tensors, **extra}, target / "model.safetensors", {"format": "pt"})
    (target / "README.md").write_text("the base")
    return target


def test_config_and_tokenizer_come_from_the_base(tmp_path: Path, base: Path) -> None:
    made = convert(DCP, tmp_path / "out", sidecars_from=base)
    assert set(made.manifest.sidecars) == {"config.json", "tokenizer.json", "tokenizer_config.json"}
    notes = plan_convert(DCP, tmp_path / "other", sidecars_from=base).plan.notes
    assert f"config and tokenizer are those of {base}" in notes
    assert len(load_file(tmp_path / "out" / "model.safetensors")) == 21


def test_a_folder_without_weights_serves_as_well(tmp_path: Path) -> None:
    convert(DCP, tmp_path / "out", sidecars_from=CONFIG)
    assert (tmp_path / "out" / "config.json").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoWeights):
        plan_convert(DCP, tmp_path / "other", sidecars_from=tmp_path / "empty")


def test_a_config_of_another_model_is_refused(tmp_path: Path) -> None:
    config = json.loads((CONFIG / "config.json").read_bytes())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps({**config, "hidden_size": 52}))
    with pytest.raises(ShapesNotConfig):
        plan_convert(DCP, tmp_path / "out", sidecars_from=tmp_path / "other")


def test_names_that_are_none_of_the_configs_are_refused_until_they_are_chosen(
    tmp_path: Path, base: Path
) -> None:
    own = {n: t for n, t in load_file(base / "model.safetensors").items() if "mtp" not in n}
    both = {f"{word}.{n}": t.clone() for word in ("policy", "reference") for n, t in own.items()}
    folder = tmp_path / "run"
    folder.mkdir()
    torch.save({"state_dict": both}, folder / "last.ckpt")
    shutil.copy(base / "config.json", folder)
    with pytest.raises(NamesNotConfig) as caught:
        plan_convert(folder, tmp_path / "out")
    first = next(iter(both))
    assert f"it has {first}" in caught.value.context
    assert f"its config promises {first.partition('.')[2]}" in caught.value.context
    with pytest.raises(NamesNotConfig):
        plan_convert(folder, tmp_path / "out", keep=["policy.*"])
    with pytest.raises(NamesNotConfig):
        plan_combine(f"0.5*{folder} + 0.5*{base}", tmp_path / "out")
    job = plan_convert(folder, tmp_path / "out", keep=["policy.*"], rename=["policy="])
    notes = (*job.plan.notes, *job.bindings.inputs["source"].notes)
    assert not any("of its config are not there" in note for note in notes)
    convert(folder, tmp_path / "out", keep=["policy.*"], rename=["policy="])
    made = load_file(tmp_path / "out" / "model.safetensors")
    assert made.keys() == own.keys()
    assert all(torch.equal(made[name], own[name]) for name in own)


def test_a_head_alone_and_a_model_without_a_head_are_named_as_their_config_says(
    tmp_path: Path, base: Path
) -> None:
    own = load_file(base / "model.safetensors")
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(base / "config.json", folder)
    torch.save({"lm_head.weight": own["lm_head.weight"]}, folder / "last.pt")
    assert len(plan_convert(folder, tmp_path / "out").plan.tensors) == 1
    inner = {n.removeprefix("model."): t for n, t in own.items() if n.startswith("model.")}
    torch.save(inner, folder / "last.pt")
    assert len(plan_convert(folder, tmp_path / "out").plan.tensors) == len(inner)


def test_what_is_left_for_the_bases_files_is_said(tmp_path: Path, base: Path) -> None:
    source = LEFT / "fsdp2_hsdp/ckpt"
    plan = plan_convert(source, tmp_path / "out", sidecars_from=base).plan
    left = "not used, the source's own: config.json, tokenizer.json, tokenizer_config.json"
    assert left in plan.notes
    assert {each.role for each in plan.sidecars} == {"sidecars"}


def test_tensors_that_are_lacking_come_from_the_base(tmp_path: Path, base: Path) -> None:
    plan_notes = plan_convert(DCP, tmp_path / "out", fill_from=base).plan.notes
    assert f"filled in from {base}, 1 tensor: mtp.fc.weight" in plan_notes
    convert(DCP, tmp_path / "out", fill_from=base, dtype="float16")
    made = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(made["mtp.fc.weight"], torch.ones(3, 3, dtype=torch.float16))
    assert len(made) == 22
    again = plan_convert(base, tmp_path / "again", fill_from=tmp_path / "out").plan.notes
    assert any(note.startswith("nothing is filled in") for note in again)


@pytest.mark.parametrize("nested", [False, True])
def test_an_output_layer_that_the_base_ties_is_not_lacking(
    tmp_path: Path, base: Path, nested: bool
) -> None:
    config = json.loads((base / "config.json").read_text())
    config.pop("tie_word_embeddings", None)
    tie = {"tie_word_embeddings": True}
    (base / "config.json").write_text(
        json.dumps(config | ({"text_config": tie} if nested else tie))
    )
    source = tmp_path / "source"
    shutil.copytree(base, source)
    held = load_file(base / "model.safetensors")
    head = held.pop("lm_head.weight", torch.ones(2, 2))
    for folder, tensors in ((base, held | {"lm_head.weight": head}), (source, held)):
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    notes = plan_convert(source, tmp_path / "out", fill_from=base).plan.notes
    assert any(note.startswith("nothing is filled in") for note in notes)


def test_names_are_chosen_and_changed(tmp_path: Path, base: Path) -> None:
    convert(
        base,
        tmp_path / "out",
        keep=["model.*"],
        drop=["model.embed_tokens.*"],
        rename=["model.layers=h", "model="],
    )
    made = load_file(tmp_path / "out" / "model.safetensors")
    assert "norm.weight" in made
    assert "h.1.mlp.up_proj.weight" in made
    assert len(made) == 19
    notes = plan_convert(base, tmp_path / "other", drop=["mtp.*"]).plan.notes
    assert "left out, as asked for: 1 tensor, 18 B" in notes
    consequence = "config.json still describes LlamaForCausalLM: check that it fits these tensors"
    assert consequence in notes


def test_without_a_config_it_is_asked_for(tmp_path: Path) -> None:
    notes = plan_convert(DCP, tmp_path / "out").plan.notes
    expected = "by the tensors: hidden 26, 2 layers, vocabulary 67"
    assert any(note.endswith(expected) for note in notes)

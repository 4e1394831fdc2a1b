"""Where a training output is: the step that counts, the newest checkpoint, a file by itself."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.support.training_cases import LEFT, differences
from weightsmith.checkpoint.opening import open_weight_file
from weightsmith.errors import (
    CheckpointUnnamed,
    OptionMeaningless,
    PrecisionMissing,
    SeveralOutputs,
    SourceIsFile,
)
from weightsmith.ops.inspect import inspect
from weightsmith.sources.kinds import Model, TrainingOutput
from weightsmith.sources.recognise import open_model, recognise


def test_latest_decides_among_steps_and_a_tag_overrules_it(ckpt: Callable[[str], Path]) -> None:
    run = ckpt("ds_zero3_w3/ckpt")
    shutil.copytree(run / "global_step3", run / "global_step20")
    found = open_model(run)
    assert {Path(file.name).parent.name for file in found.files} == {"global_step3"}
    assert "latest names global_step3" in found.notes
    assert "other steps, not used: global_step20" in found.notes
    found = open_model(f"{run}@global_step20")
    assert {Path(file.name).parent.name for file in found.files} == {"global_step20"}
    with pytest.raises(CheckpointUnnamed) as caught:
        open_model(f"{run}@global_step7")
    assert caught.value.context == ("there is global_step3", "there is global_step20")


def test_without_latest_several_steps_are_a_list_to_choose_from(
    ckpt: Callable[[str], Path],
) -> None:
    run = ckpt("ds_zero3_w3/ckpt")
    (run / "latest").unlink()
    assert open_model(run).tensors
    shutil.copytree(run / "global_step3", run / "global_step20")
    with pytest.raises(SeveralOutputs) as caught:
        open_model(run)
    assert caught.value.context == ("global_step3", "global_step20")
    assert f"{run}@global_step20" in caught.value.hint_text


def test_the_folder_of_a_step_finds_its_config_above(ckpt: Callable[[str], Path]) -> None:
    run = ckpt("ds_zero3_w3/ckpt")
    assert open_model(run / "global_step3").config["model_type"] == "llama"


def test_processes_are_sorted_by_number(tmp_path: Path) -> None:
    files: dict[str, object] = {}
    for rank in range(11):
        held = {"fp32_flat_groups": [torch.full((1,), float(rank))], "zero_stage": 3}
        step = {"optimizer_state_dict": held}
        about = {
            "module": {"w": torch.zeros(0, dtype=torch.bfloat16)},
            "param_shapes": [{"w": torch.Size([11])}],
            "buffer_names": [],
            "dp_world_size": 11,
            "global_steps": 1,
        }
        files[f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"] = step
        files[f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt"] = about
    for name, content in files.items():
        torch.save(content, tmp_path / name)
    found = recognise(tmp_path, weights="fp32")
    assert isinstance(found, TrainingOutput)
    expected = torch.arange(11, dtype=torch.float32)
    assert found.checkpoint.read_small("w") == expected.numpy().tobytes()


def test_the_newest_of_trainers_checkpoints_is_taken_and_said(
    ckpt: Callable[[str], Path],
) -> None:
    run = ckpt("hf_trainer/ckpt")
    shutil.copytree(run / "checkpoint-4", run / "checkpoint-12")
    found = open_model(run)
    assert found.directory.name == "checkpoint-12"
    assert found.label == str(run)
    assert found.notes[0] == "checkpoint-12, the newest; there are also checkpoint-4"
    assert open_model(f"{run}@checkpoint-4").directory.name == "checkpoint-4"
    with pytest.raises(CheckpointUnnamed):
        open_model(f"{run}@checkpoint-5")


def test_a_folder_with_a_model_and_checkpoints_is_the_model(ckpt: Callable[[str], Path]) -> None:
    run = ckpt("hf_trainer/ckpt")
    shutil.copy(run / "checkpoint-4" / "model.safetensors", run)
    assert open_model(run).directory == run


def test_a_directory_with_an_at_in_its_name_is_that_directory(tmp_path: Path) -> None:
    source = shutil.copytree(LEFT / "dcp_plain_w1/ckpt", tmp_path / "run@global_step3")
    (tmp_path / "run").mkdir()
    assert len(open_model(source).tensors) == 21


def test_beside_a_whole_model_the_states_count_where_they_are_asked_for(
    ckpt: Callable[[str], Path],
) -> None:
    step = ckpt("hf_trainer_ds3/ckpt") / "checkpoint-2"
    save_file({"model.norm.weight": torch.ones(26)}, step / "model.safetensors")
    assert isinstance(recognise(step), Model)
    found = recognise(step, weights="fp32")
    assert isinstance(found, TrainingOutput)
    oracle = open_weight_file(LEFT / "hf_trainer_ds3", "oracle.safetensors")
    assert not list(differences(oracle, found.checkpoint))


def test_of_a_training_in_float32_the_model_is_its_float32_weights(tmp_path: Path) -> None:
    about = {"module": {"w": torch.arange(4.0)}, "param_shapes": [{"w": torch.Size([4])}]}
    torch.save(about, tmp_path / "mp_rank_00_model_states.pt")
    for weights in ("fp32", None):
        found = recognise(tmp_path, weights=weights)
        assert isinstance(found, TrainingOutput)
        assert found.checkpoint.read_small("w") == torch.arange(4.0).numpy().tobytes()
    with pytest.raises(PrecisionMissing, match="trained in float32"):
        recognise(tmp_path, weights="16bit")


@pytest.mark.parametrize("case", ["fsdp2_fp32/ckpt", "dcp_plain_w1/ckpt"])
def test_there_is_no_choice_where_each_weight_is_held_once(case: str) -> None:
    with pytest.raises(OptionMeaningless, match="holds each weight once"):
        recognise(LEFT / case, weights="fp32")


def test_any_file_of_the_processes_stands_for_all() -> None:
    source = LEFT / "fsdp2_hsdp/ckpt/model_world_size_4_rank_3.pt"
    assert len(open_model(source).files) == 4


def test_a_file_has_the_config_beside_it_and_other_files_are_none(
    ckpt: Callable[[str], Path],
) -> None:
    folder = ckpt("fsdp1_full/ckpt")
    assert open_model(folder / "pytorch_model.bin").config["hidden_size"] == 26
    with pytest.raises(SourceIsFile):
        open_model(folder / "config.json")


def test_what_deepspeed_puts_beside_is_no_code_of_the_model() -> None:
    sidecars = open_model(LEFT / "ds_zero3_w3/ckpt").sidecars
    assert sidecars == ("config.json", "tokenizer.json", "tokenizer_config.json")


def test_without_a_config_the_shapes_tell_what_they_can() -> None:
    found = inspect(LEFT / "dcp_plain_w4/ckpt")
    assert found.kind == "training-output"
    assert found.architecture.startswith("hidden 26, 2 layers, vocabulary 67, by its tensors")


def test_an_adapter_in_the_states_of_zero_3_is_said_to_be_one(ckpt: Callable[[str], Path]) -> None:
    found = open_model(ckpt("peft_zero3/ckpt") / "zero")
    assert any("no model without its base" in note for note in found.notes)


def test_frozen_weights_that_zero_1_does_not_list_are_the_models_own(
    ckpt: Callable[[str], Path],
) -> None:
    source = ckpt("ds_zero2_frozen/ckpt")
    listed = open_model(shutil.copytree(source, source.parent / "listed"), weights="fp32")
    (states,) = source.glob("*/mp_rank_00_model_states.pt")
    content = torch.load(states, weights_only=False)
    content["frozen_param_shapes"] = content["frozen_param_fragments"] = None
    content["ds_config"]["zero_optimization"]["stage"] = 1
    torch.save(content, states)
    found = open_model(source, weights="fp32")
    assert list(found.tensors) == list(listed.tensors)
    for name, tensor in listed.tensors.items():
        assert found.tensors[name].info == tensor.info
        assert found.read_small(name) == listed.read_small(name)


def test_that_frozen_weights_were_not_saved_is_said(ckpt: Callable[[str], Path]) -> None:
    source = ckpt("ds_zero2_frozen/ckpt")
    assert not any("exclude_frozen_parameters" in note for note in open_model(source).notes)
    (states,) = source.glob("*/mp_rank_00_model_states.pt")
    content = torch.load(states, weights_only=False)
    for name in content["frozen_param_shapes"]:
        del content["module"][name]
    content["frozen_param_shapes"] = content["frozen_param_fragments"] = None
    torch.save(content, states)
    assert any("exclude_frozen_parameters" in note for note in open_model(source).notes)

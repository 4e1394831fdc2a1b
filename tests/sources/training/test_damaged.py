"""Files that do not make one model are refused by name, and nothing is published."""

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.training_cases import LEFT, edit_metadata, first_place
from weightsmith import fs
from weightsmith.errors import (
    CheckpointUnnamed,
    FileTooLarge,
    NoModelInside,
    NoParameters,
    NoTensors,
    PartitionsInvalid,
    PartsDoNotFit,
    PickleForbidden,
    PickleInvalid,
    RankMissing,
    ShapesNotConfig,
    ShardTruncated,
    SourceIsFile,
    StateEmpty,
    TrainingMixed,
    TrainingUnknown,
    WeightsmithError,
    ZipInvalid,
)
from weightsmith.formats.torch_pickle import View
from weightsmith.formats.torch_zip import TorchFile, find_entries
from weightsmith.ops.convert import convert
from weightsmith.ops.inspect import inspect
from weightsmith.sources.recognise import open_model
from weightsmith.sources.training import dcp


def refused(
    source: Path, *errors: type[WeightsmithError], words: str | None = None, **options: Any
) -> None:
    target = source.parent / "target"
    with pytest.raises(errors, match=words) as caught:
        convert(source, target, **options)
    assert caught.value.exit_code in {3, 6, 7}
    assert caught.value.hint_text
    assert not target.exists()


def swap(source: Path, name: str, edit: Callable[[Any], object]) -> None:
    """Load a torch file, change what it holds, and write it again."""
    content = torch.load(source / name, weights_only=False)
    edit(content)
    torch.save(content, source / name)


# --- files of processes ---------------------------------------------------------------------------


@pytest.mark.parametrize("rank", range(4))
def test_a_missing_process_is_named(ckpt: Callable[[str], Path], rank: int) -> None:
    source = ckpt("fsdp2_fp32/ckpt")
    (source / f"model_world_size_4_rank_{rank}.pt").unlink()
    refused(source, RankMissing, words="lacks 1 file.* of the 4")


def test_more_processes_than_there_can_be_are_only_counted(ckpt: Callable[[str], Path]) -> None:
    """Their numbers are never all in memory."""
    source = ckpt("fsdp2_fp32/ckpt")
    (source / "fsdp_config.json").unlink()
    for rank in range(4):
        path = source / f"model_world_size_4_rank_{rank}.pt"
        path.rename(source / f"model_world_size_{10**20}_rank_{rank}.pt")
    refused(source, RankMissing, words=f"lacks {10**20 - 4} file.* of the {10**20}")


def test_where_names_do_not_tell_the_tensors_do(ckpt: Callable[[str], Path]) -> None:
    source = ckpt("fsdp2_fp32/ckpt")
    for rank in range(4):
        path = source / f"model_world_size_4_rank_{rank}.pt"
        path.rename(source / f"pytorch_model_fsdp_0_rank{rank}.bin")
    convert(source, source.parent / "whole")
    (source / "pytorch_model_fsdp_0_rank3.bin").unlink()
    refused(source, RankMissing, words="lacks 1 file.* of the 4")


def test_files_of_two_numbers_of_processes_are_refused(ckpt: Callable[[str], Path]) -> None:
    source = ckpt("fsdp2_fp32/ckpt")
    shutil.copy(
        LEFT / "fsdp1_dtensor/ckpt/model_world_size_2_rank_0.pt",
        source / "model_world_size_2_rank_0.pt",
    )
    refused(source, TrainingMixed, words="of 2 and 4 processes")


def test_tensors_cut_for_more_processes_than_there_are_files_are_refused(
    ckpt: Callable[[str], Path],
) -> None:
    source = ckpt("fsdp2_fp32/ckpt")
    for rank in range(4):
        path = source / f"model_world_size_4_rank_{rank}.pt"
        path.rename(source / f"model_world_size_2_rank_{rank}.pt") if rank < 2 else path.unlink()
    (source / "fsdp_config.json").unlink()
    refused(source, TrainingMixed, words="cut for 4 processes, not 2")


def test_what_is_said_beside_the_files_must_agree(ckpt: Callable[[str], Path]) -> None:
    source = ckpt("fsdp2_fp32/ckpt")
    (source / "fsdp_config.json").write_text('{"FSDP_version": 2, "world_size": 8}')
    refused(source, TrainingMixed, words="tells of 8 processes, the names of 4")
    (source / "fsdp_config.json").write_text(f'{{"world_size": {"4" * 5000}}}')
    refused(source, TrainingMixed, words="tells of 4444.*the names of 4")


def test_a_file_of_another_run_is_refused(ckpt: Callable[[str], Path]) -> None:
    source = ckpt("fsdp2_fp32/ckpt")
    name = "model_world_size_4_rank_2.pt"
    shutil.copy(LEFT / "fsdp2_bf16_tied/ckpt" / name, source / name)
    refused(source, TrainingMixed, words="model.embed_tokens.weight is F32")
    shutil.copy(LEFT / "fsdp2_buffers/ckpt" / name, source / name)
    refused(source, TrainingMixed, words="is in some of the files and not in others")


def test_one_process_twice_is_refused(ckpt: Callable[[str], Path]) -> None:
    source = ckpt("fsdp2_fp32/ckpt")
    shutil.copy(source / "model_world_size_4_rank_0.pt", source / "model_world_size_4_rank_1.pt")
    refused(source, PartsDoNotFit, words="the files hold .* of its")


def test_replicas_of_two_steps_are_told_by_their_bytes(ckpt: Callable[[str], Path]) -> None:
    source = ckpt("fsdp2_hsdp_torch26/ckpt")
    path = source / "model_world_size_4_rank_2.pt"
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:  # the norm is trained by every step
        member = max(archive.infolist(), key=lambda each: each.file_size)
        with archive.open(member) as file:
            at = content.index(file.read())
    content[at] ^= 1
    path.write_bytes(content)
    refused(source, TrainingMixed, words="differs between .*rank_0.pt and .*rank_2.pt")


def test_counters_of_two_steps_are_told_and_other_buffers_only_noted(
    ckpt: Callable[[str], Path],
) -> None:
    source = ckpt("fsdp1_sharded_buffers/ckpt")
    path = source / "model_world_size_4_rank_1.pt"
    flip(path, "running_mean")
    assert any("differs from process to process" in note for note in inspect(source).notes)
    flip(path, "steps_seen")
    refused(source, TrainingMixed, words="steps_seen differs between")


def flip(path: Path, name: str) -> None:
    """Change a byte of a plain tensor."""
    opened = TorchFile(fs.open_for_reading(path))
    view = find_entries(opened.content, path)[0][name]
    assert isinstance(view, View)
    content = bytearray(path.read_bytes())
    content[opened.locate(name, view).offset] ^= 1
    path.write_bytes(content)


def test_a_foreign_name_in_one_file_is_refused(ckpt: Callable[[str], Path]) -> None:
    source = ckpt("fsdp1_full/ckpt")
    for name in ("model_world_size_1_rank_0.pt",):
        torch.save({"w": torch.ones(2), "note": Path("x"), "odd": print}, source / name)
    (source / "pytorch_model.bin").unlink()
    refused(source, PickleForbidden, words="builtins?.*print")


def test_a_truncated_file_is_refused(ckpt: Callable[[str], Path]) -> None:
    source = ckpt("fsdp2_fp32/ckpt")
    path = source / "model_world_size_4_rank_3.pt"
    path.write_bytes(path.read_bytes()[:-100])
    refused(source, ShardTruncated, ZipInvalid)


# --- DCP ------------------------------------------------------------------------------------------


def test_a_missing_file_of_dcp_is_named(ckpt: Callable[[str], Path]) -> None:
    source = ckpt("dcp_plain_w4/ckpt")
    (source / "__2_0.distcp").unlink()
    refused(source, RankMissing)


def test_a_truncated_file_of_dcp_is_refused(ckpt: Callable[[str], Path]) -> None:
    source = ckpt("dcp_plain_w4/ckpt")
    path = source / "__2_0.distcp"
    path.write_bytes(path.read_bytes()[:-1])
    refused(source, ShardTruncated, words="bytes where")


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/b", "", "..", "x\0y"])
def test_metadata_that_points_outside_is_refused(ckpt: Callable[[str], Path], path: str) -> None:
    source = ckpt("dcp_plain_w4/ckpt")
    edit_metadata(source, lambda m: setattr(first_place(m), "relative_path", path))
    refused(source, PartitionsInvalid, words="names a file outside its directory")


def test_offsets_beyond_the_file_are_refused(ckpt: Callable[[str], Path]) -> None:
    source = ckpt("dcp_plain_w4/ckpt")
    edit_metadata(source, lambda m: setattr(first_place(m), "offset", 10**12))
    refused(source, ShardTruncated)


@pytest.mark.parametrize("offset", [-1, 1.5, None, "0", True])
def test_offsets_that_are_none_are_refused(ckpt: Callable[[str], Path], offset: object) -> None:
    source = ckpt("dcp_plain_w4/ckpt")
    edit_metadata(source, lambda m: setattr(first_place(m), "offset", offset))
    refused(source, PartitionsInvalid, words="has no place")


def test_a_range_with_another_tensor_is_refused(ckpt: Callable[[str], Path]) -> None:
    source = ckpt("dcp_plain_w4/ckpt")

    def exchange(metadata: Any) -> None:
        places = list(metadata.storage_data.values())
        first, other = places[0], places[1]
        first.offset, first.length = other.offset, other.length

    edit_metadata(source, exchange)
    refused(source, PartitionsInvalid, words="is .* there, not")


def test_encoded_tensors_are_refused(ckpt: Callable[[str], Path]) -> None:
    source = ckpt("dcp_plain_w4/ckpt")
    edit_metadata(source, lambda m: setattr(first_place(m), "transform_descriptors", ["zstd"]))
    refused(source, PartitionsInvalid, words="is stored in an encoded form")


def test_chunks_that_do_not_cover_a_tensor_are_refused(ckpt: Callable[[str], Path]) -> None:
    source = ckpt("dcp_plain_w4/ckpt")

    def drop(metadata: Any) -> None:
        next(iter(metadata.state_dict_metadata.values())).chunks.pop()

    edit_metadata(source, drop)
    refused(source, PartsDoNotFit)


def test_metadata_of_a_hundred_megabytes_is_not_read(
    ckpt: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ckpt("dcp_plain_w4/ckpt")
    with (source / ".metadata").open("r+b") as file:
        file.truncate(100_000_000)
    refused(source, FileTooLarge)
    monkeypatch.setattr(dcp, "_MAX_OPCODES", 1000)
    shutil.copy(LEFT / "dcp_plain_w4/ckpt/.metadata", source / ".metadata")
    refused(source, PickleInvalid, words="goes on after 1000 steps")


@pytest.mark.parametrize("raw", [b"", b"not a pickle", pickle.dumps([1]), pickle.dumps({})])
def test_metadata_that_is_none_is_refused(ckpt: Callable[[str], Path], raw: bytes) -> None:
    source = ckpt("dcp_plain_w4/ckpt")
    (source / ".metadata").write_bytes(raw)
    refused(source, PickleInvalid, PartitionsInvalid)


def test_two_models_in_one_checkpoint_are_listed(ckpt: Callable[[str], Path]) -> None:
    source = ckpt("dcp_wrapped/ckpt")

    def split(metadata: Any) -> None:
        for number, name in enumerate(metadata.planner_data):
            place = "student" if number % 2 else "teacher"
            metadata.planner_data[name] = (place, metadata.planner_data[name][-1])

    edit_metadata(source, split)
    refused(source, NoModelInside, words="several are in it: student, teacher")


def test_a_missing_last_file_of_safetensors_shows_against_the_config(
    ckpt: Callable[[str], Path],
) -> None:
    source = ckpt("dcp_hf_buffers/ckpt")
    shutil.copy(LEFT / "fsdp2_buffers/ckpt/huggingface/config.json", source)
    convert(source, source.parent / "whole")
    (source / "shard-00004-model-00001-of-00001.safetensors").unlink()
    refused(source, ShapesNotConfig, words="of other shapes than its config says")
    (source / "shard-00002-model-00001-of-00001.safetensors").unlink()
    refused(source, RankMissing)


# --- DeepSpeed ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "zero_pp_rank_2_mp_rank_00_model_states.pt",
        "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
        "bf16_zero_pp_rank_2_mp_rank_00_optim_states.pt",
    ],
)
def test_a_missing_process_of_zero_is_named(ckpt: Callable[[str], Path], name: str) -> None:
    source = ckpt("ds_zero3_w3/ckpt")
    (source / "global_step3" / name).unlink()
    refused(source, RankMissing, words="lacks 1 file.* of the 3")


def test_more_processes_of_zero_than_there_can_be_are_only_counted(
    ckpt: Callable[[str], Path],
) -> None:
    source = ckpt("ds_zero3_w3/ckpt")
    for path in (source / "global_step3").glob("*model_states.pt"):
        swap(path.parent, path.name, lambda held: held.update(dp_world_size=10**20))
    refused(source, RankMissing, words=f"lacks {10**20 - 3} file.* of the {10**20}")


def test_two_steps_of_zero_are_told_by_what_they_count(ckpt: Callable[[str], Path]) -> None:
    source = ckpt("ds_zero3_w3/ckpt")
    name = "zero_pp_rank_1_mp_rank_00_model_states.pt"
    swap(source / "global_step3", name, lambda held: held.update(global_steps=4))
    refused(source, TrainingMixed, words=r"differ in global_steps \(3 and 4\)")


def test_two_steps_of_zero_2_are_told_by_what_the_weights_round_to(
    ckpt: Callable[[str], Path],
) -> None:
    source = ckpt("ds_zero2_fp16/ckpt")
    name = "zero_pp_rank_1_mp_rank_00_optim_states.pt"
    path = source / "global_step3" / name
    opened = TorchFile(fs.open_for_reading(path))
    held: Any = opened.content
    view = held["optimizer_state_dict"]["single_partition_of_fp32_groups"][0]
    content = bytearray(path.read_bytes())
    content[opened.locate("weights", view).offset + 2] ^= 0x40  # the upper half of the first
    path.write_bytes(content)
    refused(source, TrainingMixed, words=f"{name} is not what", weights="fp32")
    convert(source, source.parent / "as_trained")


def test_states_of_another_number_of_processes_are_refused(ckpt: Callable[[str], Path]) -> None:
    source = ckpt("ds_zero3_w3/ckpt")
    folder = source / "global_step3"
    for name in ("model_states", "optim_states"):
        for path in folder.glob(f"*rank_2*{name}.pt"):
            path.unlink()
    for path in folder.glob("*model_states.pt"):
        swap(folder, path.name, lambda held: held.update(dp_world_size=2))
    refused(source, TrainingMixed, words="should hold .* weights, and holds")


@pytest.mark.parametrize("latest", ["global_step9", "../elsewhere", "", "a/b"])
def test_latest_must_name_a_step_that_is_there(ckpt: Callable[[str], Path], latest: str) -> None:
    source = ckpt("ds_zero3_w3/ckpt")
    (source / "latest").write_text(latest)
    refused(source, CheckpointUnnamed, PartitionsInvalid)


def test_an_empty_state_under_a_models_name_is_no_model(ckpt: Callable[[str], Path]) -> None:
    source = ckpt("ds_zero3_w3/ckpt")
    step = source / "global_step3" / "zero_pp_rank_0_mp_rank_00_model_states.pt"
    (source / "alone").mkdir()
    shutil.copy(step, source / "alone" / "pytorch_model.bin")
    refused(source / "alone", NoParameters, words="not a single parameter")
    with pytest.raises(NoParameters):
        inspect(source / "alone")


def test_runs_with_other_parallelism_are_refused(ckpt: Callable[[str], Path]) -> None:
    source = ckpt("ds_zero2_fp16/ckpt")
    folder = source / "global_step3"
    shutil.copy(folder / "mp_rank_00_model_states.pt", folder / "mp_rank_01_model_states.pt")
    refused(source, TrainingUnknown, words="model, pipeline or expert parallelism")


# --- single files ---------------------------------------------------------------------------------


def test_one_shard_of_a_model_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for number in (1, 2):
        name = f"model-0000{number}-of-00002.safetensors"
        save_file({f"w{number}": torch.ones(2)}, tmp_path / "model" / name)
    refused(tmp_path / "model" / "model-00001-of-00002.safetensors", SourceIsFile)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt"])
def test_a_file_without_tensors_of_a_model_is_none(ckpt: Callable[[str], Path], name: str) -> None:
    step = ckpt("hf_trainer/ckpt") / "checkpoint-4"
    refused(step / name, NoTensors)
    with pytest.raises(NoTensors):
        inspect(step / name)


def test_an_adapter_of_empty_tensors_is_no_adapter(ckpt: Callable[[str], Path]) -> None:
    source = ckpt("peft_zero3/ckpt")
    with pytest.raises(NoParameters, match="9 tensors, and not a single parameter") as caught:
        inspect(source)
    assert f"the weights are in {source / 'zero'}" in caught.value.hint_text


def test_what_is_wrong_with_a_source_goes_before_a_choice_that_it_does_not_offer(
    ckpt: Callable[[str], Path],
) -> None:
    with pytest.raises(NoParameters):
        open_model(ckpt("peft_zero3/ckpt"), weights="fp32")


def test_half_of_the_tensors_are_enough_to_tell(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    tensors = {"a.weight": torch.ones(0), "b.weight": torch.ones(0), "inv_freq": torch.ones(4)}
    save_file(tensors, tmp_path / "model" / "model.safetensors")
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "x"}))
    refused(tmp_path / "model", StateEmpty, words="2 of the 3 tensors")
    assert len(load_file(tmp_path / "model" / "model.safetensors")) == 3

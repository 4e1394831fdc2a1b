"""Training outputs that do not make one model, in the base's place."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from tests.support.bad_input.case import ARGS, Cases, write_pair
from tests.support.training_cases import LEFT, edit_metadata, first_place

TRAINING: Final = Cases("What training left")


def _left(folder: Path, case: str) -> Path:
    """A sound pair, the base replaced by what a framework left."""
    write_pair(folder)
    shutil.rmtree(folder / "base")
    return Path(shutil.copytree(LEFT / case, folder / "base", copy_function=shutil.copyfile))


@TRAINING.add("A process's file missing (FSDP)", 3, "rank-missing")
def a_process_missing(folder: Path) -> Sequence[str]:
    (_left(folder, "fsdp2_fp32/ckpt") / "model_world_size_4_rank_2.pt").unlink()
    return ARGS


@TRAINING.add("Files of runs with two and with four processes", 7, "training-mixed")
def two_numbers_of_processes(folder: Path) -> Sequence[str]:
    name = "model_world_size_2_rank_0.pt"
    left = _left(folder, "fsdp2_fp32/ckpt")
    shutil.copyfile(LEFT / "fsdp1_dtensor/ckpt" / name, left / name)
    return ARGS


@TRAINING.add("A process's file of another run", 7, "training-mixed")
def a_file_of_another_run(folder: Path) -> Sequence[str]:
    name = "model_world_size_4_rank_2.pt"
    left = _left(folder, "fsdp2_fp32/ckpt")
    shutil.copyfile(LEFT / "fsdp2_bf16_tied/ckpt" / name, left / name)
    return ARGS


@TRAINING.add("Flat parameters of FSDP, without names", 3, "model-unnamed")
def flat_parameters(folder: Path) -> Sequence[str]:
    _left(folder, "fsdp1_local/ckpt")
    return ARGS


@TRAINING.add("A distributed checkpoint of an optimizer alone", 3, "no-model-inside")
def an_optimizer_alone(folder: Path) -> Sequence[str]:
    _left(folder, "accelerate_fsdp2_sharded/ckpt/optimizer_0")
    return ARGS


@TRAINING.add("A .distcp file cut short", 6, "shard-truncated")
def a_chunk_cut_short(folder: Path) -> Sequence[str]:
    path = _left(folder, "dcp_plain_w1/ckpt") / "__0_0.distcp"
    path.write_bytes(path.read_bytes()[:20_000])
    return ARGS


@TRAINING.add("Metadata that names a file outside its folder", 6, "partitions-invalid")
def metadata_outside(folder: Path) -> Sequence[str]:
    left = _left(folder, "dcp_plain_w1/ckpt")
    edit_metadata(left, lambda m: setattr(first_place(m), "relative_path", "../../secret"))
    return ARGS


@TRAINING.add("Metadata with an offset beyond its file", 6, "shard-truncated")
def an_offset_beyond(folder: Path) -> Sequence[str]:
    left = _left(folder, "dcp_plain_w1/ckpt")
    edit_metadata(left, lambda m: setattr(first_place(m), "offset", 10**9))
    return ARGS


@TRAINING.add("Metadata of 100 MB", 6, "file-too-large")
def metadata_too_large(folder: Path) -> Sequence[str]:
    with (_left(folder, "dcp_plain_w1/ckpt") / ".metadata").open("r+b") as file:
        file.truncate(100_000_000)
    return ARGS


@TRAINING.add("Metadata that would run something", 6, "pickle-forbidden")
def metadata_that_runs(folder: Path) -> Sequence[str]:
    left = _left(folder, "dcp_plain_w1/ckpt")
    (left / ".metadata").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    return ARGS


@TRAINING.add("Two steps of ZeRO-3 in one folder", 7, "training-mixed")
def two_steps(folder: Path) -> Sequence[str]:
    step = _left(folder, "ds_zero3_w3/ckpt") / "global_step3"
    path = step / "zero_pp_rank_1_mp_rank_00_model_states.pt"
    held = torch.load(path, weights_only=False)
    torch.save({**held, "global_steps": 4}, path)
    return ARGS


@TRAINING.add("A step that latest names and that is gone", 3, "checkpoint-unnamed")
def a_step_that_is_gone(folder: Path) -> Sequence[str]:
    (_left(folder, "ds_zero3_w3/ckpt") / "latest").write_text("global_step500")
    return ARGS


@TRAINING.add("An empty state of ZeRO-3, renamed pytorch_model.bin", 6, "no-parameters")
def an_empty_state(folder: Path) -> Sequence[str]:
    left = _left(folder, "ds_zero3_w3/ckpt")
    step = left / "global_step3" / "zero_pp_rank_0_mp_rank_00_model_states.pt"
    step.rename(left / "pytorch_model.bin")
    return ARGS


@TRAINING.add("A pickled module in place of its state dict", 6, "pickle-forbidden")
def a_pickled_module(folder: Path) -> Sequence[str]:
    _left(folder, "wrappers/ckpt")
    return ("--base", "base/whole_module.pt", *ARGS[2:])


@TRAINING.add("A folder with several checkpoints", 3, "several-outputs")
def several_checkpoints(folder: Path) -> Sequence[str]:
    _left(folder, "lightning/ckpt")
    return ARGS

"""The names of files that training frameworks leave, by which their outputs are recognised."""

import re
from collections.abc import Iterable
from typing import Final

VERL: Final = re.compile(r"model_world_size_(\d+)_rank_(\d+)\.pt")
ACCELERATE: Final = re.compile(r"pytorch_model_fsdp(?:_(\d+))?_rank_?(\d+)\.bin")
"""One file a process, of FSDP."""
DCP_SAFETENSORS: Final = re.compile(r"shard-(\d{5})-model-(\d{5})-of-(\d{5})\.safetensors")
"""Process, file, number of files."""
ZERO_MODEL: Final = re.compile(r"(?:zero_pp_rank_(\d+)_)?mp_rank_(\d+)_model_states\.pt")
"""The model and what is known of it; with ZeRO-3 a file a process, and no weights in it."""
ZERO_PARTITIONS: Final = re.compile(
    r"(?:bf16_|fp16_)?zero_pp_rank_(\d+)_mp_rank_(\d+)_optim_states\.pt"
)
"""A process's part of the optimizer's state, the float32 weights among it."""
CHECKPOINT: Final = re.compile(r"checkpoint-(\d+)")
"""Trainer's folder of a step."""
_DISTCP: Final = re.compile(r".*\.distcp")
_ALONE: Final = re.compile(r".*\.(ckpt|pt|pth)")


def is_rank_file(name: str) -> bool:
    """Whether a file is one process's part, though it is named as a model's might be."""
    return ACCELERATE.fullmatch(name) is not None or VERL.fullmatch(name) is not None


def told_by_paths(paths: Iterable[str]) -> str | None:
    """A few words on the training output in a tree of files; None if no name is a known one."""
    split = [path.split("/") for path in paths]
    files, folders = (
        {parts[-1] for parts in split},
        {each for parts in split for each in parts[:-1]},
    )
    for words, rules, names in (
        ("files of FSDP's processes", (VERL, ACCELERATE), files),
        ("files of a distributed checkpoint of torch", (_DISTCP, DCP_SAFETENSORS), files),
        ("DeepSpeed's states", (ZERO_MODEL, ZERO_PARTITIONS), files),
        ("checkpoints of a training run", (CHECKPOINT,), folders),
        ("single torch files", (_ALONE,), {parts[0] for parts in split if len(parts) == 1}),
    ):
        if any(rule.fullmatch(name) for rule in rules for name in names):
            return words
    return None

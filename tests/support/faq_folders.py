"""Folders with the faults that the page of error messages answers, for its scene."""

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch

from tests.support.paths import VECTORS
from tests.support.skew_cases import folder_of

FOLDERS: Final[Mapping[str, Path]] = {
    "saved-by-5": folder_of("extra-tokens-list"),
    "pairs": folder_of("merges-pairs"),
    "mistral": folder_of("good-mistral"),
    "llama-7b": VECTORS / "vicuna_v0" / "base",
    "vicuna-7b-delta-v0": VECTORS / "vicuna_v0" / "delta",
    "LLaMA": VECTORS / "meta_llama1_2shards" / "meta",
    "lora-base": VECTORS / "lora" / "plain_fp16" / "base",
    "adapter": VECTORS / "lora" / "plain_fp16" / "adapter",
}
"""The folders of others that the page names."""


def place(here: Path, base: Path) -> None:
    """Give each faulty folder the name that the page uses; `base` is a sound tiny model."""
    for name, folder in FOLDERS.items():
        shutil.copytree(folder, here / name)
    cut_short(Path(shutil.copytree(base, here / "cut-short")))
    row_too_many(Path(shutil.copytree(base, here / "row-too-many")))
    prefixed(Path(shutil.copytree(base, here / "from-training")))


def cut_short(model: Path) -> None:
    """A download that broke off: the last bytes of the weights are missing."""
    weights = next(model.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])


def row_too_many(model: Path) -> None:
    """A config that promises a row of the vocabulary that the weights lack."""
    config = json.loads((model / "config.json").read_bytes())
    config["vocab_size"] += 1
    (model / "config.json").write_text(json.dumps(config))


def prefixed(model: Path) -> None:
    """A torch file of a training run: every name behind ``module.``, something else beside them."""
    from safetensors.torch import load_file

    weights = next(model.glob("*.safetensors"))
    state = {f"module.{name}": tensor for name, tensor in load_file(weights).items()}
    found = {"state_dict": state, "args": argparse.Namespace(lr=1e-5)}
    torch.save(found, model / "pytorch_model.bin")
    weights.unlink()

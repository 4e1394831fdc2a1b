"""Bad sources: nothing there, something else there, or nothing that may be read."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from tests.support.bad_input.case import (
    ARGS,
    WEIGHTS,
    Cases,
    write_base,
    write_delta,
    write_pair,
    write_sparse,
)

SOURCES: Final = Cases("Sources")
ENTRIES: Final = 10_000
_LORA_A: Final = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


@SOURCES.add("A name that nothing has", 3, "source-not-found")
def nothing_there(folder: Path) -> Sequence[str]:
    write_pair(folder)
    return ("--base", "./bsae", *ARGS[2:])


@SOURCES.add("A file that holds no weights given in place of its folder", 3, "source-is-file")
def a_file_as_source(folder: Path) -> Sequence[str]:
    write_pair(folder)
    return ("--base", "base/config.json", *ARGS[2:])


@SOURCES.add("An empty folder", 3, "no-weights")
def an_empty_folder(folder: Path) -> Sequence[str]:
    write_base(folder)
    (folder / "delta").mkdir()
    return ARGS


def _holds(folder: Path, name: str, *files: str) -> Sequence[str]:
    """A sound pair but for one side, which holds these files in place of weights."""
    write_pair(folder)
    shutil.rmtree(folder / name)
    for file in files:
        (folder / name / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / name / file).write_bytes(b"{}")
    return ARGS


@SOURCES.add("A LoRA adapter given as delta", 3, "no-weights")
def an_adapter_as_delta(folder: Path) -> Sequence[str]:
    args = _holds(folder, "delta", "adapter_config.json")
    torch.save({_LORA_A: torch.zeros(4, 64)}, folder / "delta" / "adapter_model.bin")
    return args


@SOURCES.add("A LoRA adapter given as base", 3, "no-weights")
def an_adapter_as_base(folder: Path) -> Sequence[str]:
    args = _holds(folder, "base", "adapter_config.json")
    write_sparse(folder / "base" / "adapter_model.safetensors", {_LORA_A: ("F32", 4, (4, 64))})
    return args


@SOURCES.add("A folder of GGUF files, made for llama.cpp", 3, "no-weights")
def only_gguf(folder: Path) -> Sequence[str]:
    return _holds(folder, "base", "llama-7b.Q4_K_M.gguf", "llama-7b.Q8_0.gguf")


@SOURCES.add("Weights for TensorFlow and Flax alone", 3, "no-weights")
def only_tensorflow(folder: Path) -> Sequence[str]:
    return _holds(folder, "base", "tf_model.h5", "flax_model.msgpack", "config.json")


@SOURCES.add("Meta's weights without their params.json", 3, "no-weights")
def meta_without_params(folder: Path) -> Sequence[str]:
    return _holds(folder, "base", "consolidated.00.pth", "consolidated.01.pth")


@SOURCES.add("Meta's params.json without weights", 3, "no-weights")
def meta_without_weights(folder: Path) -> Sequence[str]:
    return _holds(folder, "base", "params.json", "checklist.chk")


@SOURCES.add("Meta's params.json that describes no model", 6, "params-invalid")
def meta_params_of_nothing(folder: Path) -> Sequence[str]:
    return _holds(folder, "base", "params.json", "consolidated.00.pth")


@SOURCES.add("A folder whose models lie one level below", 3, "no-weights")
def one_level_too_high(folder: Path) -> Sequence[str]:
    write_pair(folder)
    for name in ("llama-7b", "llama-13b"):
        write_base(folder / "models", name)
    return ("--base", "models", *ARGS[2:])


@SOURCES.add(f"A folder of {ENTRIES} files that are no weights", 3, "no-weights")
def ten_thousand_entries(folder: Path) -> Sequence[str]:
    write_base(folder)
    delta = folder / "delta"
    delta.mkdir()
    for number in range(ENTRIES):
        (delta / f"optimizer-{number:06d}.bin").touch()
    return ARGS


@SOURCES.add("A release of XORed files given as base", 3, "encoded-release")
def an_xor_release(folder: Path) -> Sequence[str]:
    arguments = _holds(folder, "base", "pytorch_model.bin")
    (folder / "base" / "pytorch_model.bin").write_bytes(bytes(1000))
    return arguments


@SOURCES.add("A folder that is a link to itself", 3, "link-broken")
def a_source_that_is_a_loop(folder: Path) -> Sequence[str]:
    write_delta(folder)
    (folder / "base").symlink_to("base")
    return ARGS


@SOURCES.add("A weight file that is a link to itself", 3, "link-broken")
def a_shard_that_is_a_loop(folder: Path) -> Sequence[str]:
    path = write_pair(folder) / WEIGHTS
    path.unlink()
    path.symlink_to(WEIGHTS)
    return ARGS


@SOURCES.add("A link into a cache that was cleaned", 3, "link-broken")
def a_shard_gone_from_the_cache(folder: Path) -> Sequence[str]:
    path = write_pair(folder) / WEIGHTS
    path.unlink()
    path.symlink_to("../../blobs/4d7a214614ab2935")
    return ARGS


@SOURCES.add("A FIFO in the place of a weight file", 6, "not-regular-file")
def a_fifo_as_shard(folder: Path) -> Sequence[str]:
    path = write_pair(folder) / WEIGHTS
    path.unlink()
    os.mkfifo(path)
    return ARGS


@SOURCES.add("A device in the place of a weight file", 6, "not-regular-file")
def a_device_as_shard(folder: Path) -> Sequence[str]:
    path = write_pair(folder) / WEIGHTS
    path.unlink()
    path.symlink_to("/dev/zero")
    return ARGS


@SOURCES.add("A FIFO in the place of config.json", 6, "not-regular-file")
def a_fifo_as_config(folder: Path) -> Sequence[str]:
    path = write_pair(folder) / "config.json"
    path.unlink()
    os.mkfifo(path)
    return ARGS


def _closed(path: Path) -> Sequence[str]:
    path.chmod(0)
    return ARGS


@SOURCES.add("A folder that may not be entered", 3, "source-unreadable", unprivileged=True)
def a_closed_folder(folder: Path) -> Sequence[str]:
    write_pair(folder)
    return _closed(folder / "base")


@SOURCES.add("A weight file that may not be read", 3, "source-unreadable", unprivileged=True)
def a_closed_shard(folder: Path) -> Sequence[str]:
    return _closed(write_pair(folder) / WEIGHTS)


@SOURCES.add("A config that may not be read", 3, "source-unreadable", unprivileged=True)
def a_closed_config(folder: Path) -> Sequence[str]:
    return _closed(write_pair(folder) / "config.json")


@SOURCES.add("A config that is not JSON", 6, "json-invalid")
def a_config_that_is_not_json(folder: Path) -> Sequence[str]:
    (write_pair(folder) / "config.json").write_text("{'model_type': 'llama'}")
    return ARGS


@SOURCES.add("A config that nests without end", 6, "json-invalid")
def a_deep_config(folder: Path) -> Sequence[str]:
    (write_pair(folder) / "config.json").write_text('{"a":' * 100_000)
    return ARGS


@SOURCES.add("A config that is a list", 6, "json-invalid")
def a_config_that_is_a_list(folder: Path) -> Sequence[str]:
    (write_pair(folder) / "config.json").write_text("[]")
    return ARGS


@SOURCES.add("A config that says a thing twice", 6, "json-invalid")
def a_config_that_repeats(folder: Path) -> Sequence[str]:
    (write_pair(folder) / "config.json").write_text('{"vocab_size": 8, "vocab_size": 9}')
    return ARGS


@SOURCES.add("A config of 100 MB", 6, "file-too-large")
def a_huge_config(folder: Path) -> Sequence[str]:
    path = write_pair(folder) / "config.json"
    os.truncate(path, 100_000_000)
    return ARGS


@SOURCES.add("A web page in the place of config.json", 6, "web-page")
def a_web_page_as_config(folder: Path) -> Sequence[str]:
    (write_pair(folder) / "config.json").write_text("<!DOCTYPE html><html>Not found</html>")
    return ARGS


@SOURCES.add("A git-lfs pointer in the place of tokenizer.model", 6, "lfs-pointer")
def a_pointer_as_tokenizer(folder: Path) -> Sequence[str]:
    (write_pair(folder) / "tokenizer.model").write_text(LFS_POINTER)
    return ARGS


LFS_POINTER: Final = f"""\
version https://git-lfs.github.com/spec/v1
oid sha256:{"9e" * 32}
size 9976634558
"""


@SOURCES.add("A card that is a link to a file elsewhere", 6, "sidecar-escapes")
def a_link_to_elsewhere(folder: Path) -> Sequence[str]:
    delta = write_pair(folder)
    (folder / "secret").write_text("anybody's")
    (delta / "README.md").symlink_to("../secret")
    return ARGS

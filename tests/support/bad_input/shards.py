"""Bad weight files and indexes: incomplete, something else, or unsafe."""

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file

from tests.support.bad_input.case import ARGS, WEIGHTS, Cases, weights, write_pair
from tests.support.bad_input.sources import LFS_POINTER
from tests.support.folders import save

SHARDS: Final = Cases("Weight files")
INDEXES: Final = Cases("Indexes")
BIN: Final = "pytorch_model.bin"
EMBEDDINGS: Final = "model.embed_tokens.weight"
SECOND: Final = "model-00002-of-00003.safetensors"
INDEX: Final = "model.safetensors.index.json"


# --- incomplete -----------------------------------------------------------------------------------


@SHARDS.add("A shard is missing, by the index", 3, "shard-missing")
def a_missing_shard(folder: Path) -> Sequence[str]:
    (write_pair(folder, shards=3) / SECOND).unlink()
    return ARGS


@SHARDS.add("A shard is missing, by the numbers in the names", 3, "shard-missing")
def a_missing_number(folder: Path) -> Sequence[str]:
    (write_pair(folder, shards=3, index=False) / SECOND).unlink()
    return ARGS


@SHARDS.add("An empty shard", 6, "shard-empty")
def an_empty_shard(folder: Path) -> Sequence[str]:
    (write_pair(folder, shards=3) / SECOND).write_bytes(b"")
    return ARGS


@SHARDS.add("Half a shard", 6, "shard-truncated")
def half_a_shard(folder: Path) -> Sequence[str]:
    path = write_pair(folder, shards=3) / SECOND
    os.truncate(path, path.stat().st_size - 20)
    return ARGS


@SHARDS.add("A shard that ends within its header", 6, "shard-truncated")
def half_a_header(folder: Path) -> Sequence[str]:
    os.truncate(write_pair(folder, shards=3) / SECOND, 60)
    return ARGS


@SHARDS.add("Half a torch file", 6, "shard-truncated")
def half_a_torch_file(folder: Path) -> Sequence[str]:
    path = write_pair(folder, suffix="bin") / BIN
    os.truncate(path, path.stat().st_size // 2)
    return ARGS


@SHARDS.add("A torch file without the end of its zip archive", 6, "shard-truncated")
def a_zip_without_its_end(folder: Path) -> Sequence[str]:
    path = write_pair(folder, suffix="bin") / BIN
    os.truncate(path, path.stat().st_size - 22)
    return ARGS


@SHARDS.add("A torch file whose middle is lost", 6, "zip-invalid")
def a_zip_without_its_middle(folder: Path) -> Sequence[str]:
    path = write_pair(folder, suffix="bin") / BIN
    raw = path.read_bytes()
    path.write_bytes(raw[:1000] + raw[-1500:])
    return ARGS


@SHARDS.add("The files of two models in one folder", 6, "tensor-twice")
def two_models_in_one(folder: Path) -> Sequence[str]:
    save(write_pair(folder) / "model-copy.safetensors", weights())
    return ARGS


# --- something else -------------------------------------------------------------------------------


@SHARDS.add("A git-lfs pointer in the place of a shard", 6, "lfs-pointer")
def an_lfs_pointer(folder: Path) -> Sequence[str]:
    (write_pair(folder, shards=3) / SECOND).write_text(LFS_POINTER)
    return ARGS


@SHARDS.add("A web page in the place of a shard", 6, "web-page")
def a_web_page(folder: Path) -> Sequence[str]:
    page = "\n<!DOCTYPE html><html><title>Sign in</title></html>"
    (write_pair(folder, suffix="bin") / BIN).write_text(page)
    return ARGS


@SHARDS.add("A server's error message in the place of a shard", 6, "server-message")
def a_servers_message(folder: Path) -> Sequence[str]:
    (write_pair(folder, suffix="bin") / BIN).write_text('{"error":"Repository not found"}')
    return ARGS


@SHARDS.add("A torch file under a safetensors name", 6, "header-invalid")
def a_torch_file_misnamed(folder: Path) -> Sequence[str]:
    path = write_pair(folder) / WEIGHTS
    torch.save(weights(norm=0.0), path)
    return ARGS


@SHARDS.add("A safetensors file under a torch name", 6, "zip-invalid")
def a_safetensors_file_misnamed(folder: Path) -> Sequence[str]:
    delta = write_pair(folder)
    (delta / WEIGHTS).rename(delta / BIN)
    return ARGS


@SHARDS.add("A torch file from before torch 1.6", 6, "legacy-torch-file")
def a_legacy_torch_file(folder: Path) -> Sequence[str]:
    path = write_pair(folder, suffix="bin") / BIN
    torch.save(weights(norm=0.0), path, _use_new_zipfile_serialization=False)
    return ARGS


@SHARDS.add("A torch file from before torch 0.1.10, a tar archive", 6, "legacy-torch-file")
def a_tar_archive(folder: Path) -> Sequence[str]:
    path = write_pair(folder, suffix="bin") / BIN
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    return ARGS


@SHARDS.add("A TorchScript program", 6, "torch-script-archive")
def a_torchscript_program(folder: Path) -> Sequence[str]:
    path = write_pair(folder, suffix="bin") / BIN
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"archive/{name}", b"")
    return ARGS


@SHARDS.add("A compressed torch file", 6, "zip-invalid")
def a_compressed_torch_file(folder: Path) -> Sequence[str]:
    path = write_pair(folder, suffix="bin") / BIN
    raw = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(raw) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return ARGS


@SHARDS.add("A tensor that shows one element many times", 6, "expanded-tensor")
def an_expanded_tensor(folder: Path) -> Sequence[str]:
    expanded = {"model.norm.weight": torch.zeros(1).half().expand(4)}
    save(write_pair(folder, suffix="bin") / BIN, weights(norm=0.0) | expanded)
    return ARGS


# --- unsafe ---------------------------------------------------------------------------------------


class _Runs:
    """Unpickled, it would call a function."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch it-ran",)


@SHARDS.add("A pickle that would run a program", 6, "pickle-forbidden")
def a_pickle_that_calls(folder: Path) -> Sequence[str]:
    torch.save({"model.norm.weight": _Runs()}, write_pair(folder, suffix="bin") / BIN)
    return ARGS


@SHARDS.add("A whole model object, saved with its class", 6, "pickle-forbidden")
def a_pickled_object(folder: Path) -> Sequence[str]:
    torch.save(torch.nn.Linear(2, 2), write_pair(folder, suffix="bin") / BIN)
    return ARGS


@SHARDS.add("A torch file that holds no map of tensors", 6, "pickle-invalid")
def a_pickled_list(folder: Path) -> Sequence[str]:
    torch.save([torch.zeros(2)], write_pair(folder, suffix="bin") / BIN)
    return ARGS


# --- indexes --------------------------------------------------------------------------------------


def _indexed(folder: Path, content: object) -> Sequence[str]:
    """A sound pair, but for the delta's index."""
    text = content if isinstance(content, str) else json.dumps(content)
    (write_pair(folder, shards=3) / INDEX).write_text(text)
    return ARGS


def _with(folder: Path, **names: str) -> Sequence[str]:
    """A sound pair, but for more entries in the delta's index."""
    path = write_pair(folder, shards=3) / INDEX
    weight_map = json.loads(path.read_bytes())["weight_map"]
    path.write_text(json.dumps({"weight_map": weight_map | names}))
    return ARGS


@INDEXES.add("An index that leaves out what its shard holds", 6, "index-incomplete")
def an_index_that_leaves_out(folder: Path) -> Sequence[str]:
    path = write_pair(folder, shards=3) / INDEX
    index = json.loads(path.read_bytes())
    del index["weight_map"][EMBEDDINGS]
    path.write_text(json.dumps(index))
    return ARGS


@INDEXES.add("Another version of a tensor in another shard", 6, "copies-differ")
def a_stale_copy(folder: Path) -> Sequence[str]:
    delta = write_pair(folder, shards=3)
    save(delta / SECOND, {**load_file(delta / SECOND), EMBEDDINGS: torch.zeros(2, 2)})
    return ARGS


@INDEXES.add("An index that is not JSON", 6, "json-invalid")
def an_index_that_is_not_json(folder: Path) -> Sequence[str]:
    return _indexed(folder, '{"weight_map": {"model.norm')


@INDEXES.add("An empty index file", 6, "json-invalid")
def an_empty_index(folder: Path) -> Sequence[str]:
    return _indexed(folder, "")


@INDEXES.add("An index that says a thing twice", 6, "json-invalid")
def an_index_that_repeats(folder: Path) -> Sequence[str]:
    return _indexed(folder, '{"weight_map": {"a": "1.safetensors", "a": "2.safetensors"}}')


@INDEXES.add("An index that nests without end", 6, "json-invalid")
def a_deep_index(folder: Path) -> Sequence[str]:
    return _indexed(folder, '{"weight_map":' * 100_000)


@INDEXES.add("An index without a map", 6, "index-invalid")
def an_index_without_a_map(folder: Path) -> Sequence[str]:
    return _indexed(folder, {"metadata": {"total_size": 0}})


@INDEXES.add("An index that maps nothing", 6, "index-invalid")
def an_index_of_nothing(folder: Path) -> Sequence[str]:
    return _indexed(folder, {"weight_map": {}})


@INDEXES.add("An index of 200 MB", 6, "file-too-large")
def a_huge_index(folder: Path) -> Sequence[str]:
    os.truncate(write_pair(folder, shards=3) / INDEX, 200_000_000)
    return ARGS


@INDEXES.add("An index that is a git-lfs pointer", 6, "lfs-pointer")
def an_index_that_is_a_pointer(folder: Path) -> Sequence[str]:
    return _indexed(folder, LFS_POINTER)


@INDEXES.add("An index that names a tensor which its file does not hold", 6, "tensor-missing")
def an_index_that_promises(folder: Path) -> Sequence[str]:
    return _with(folder, **{"model.layers.1.mlp.up_proj.weight": SECOND})


@INDEXES.add("An index that names a file which is not there", 3, "shard-missing")
def an_index_that_names_no_file(folder: Path) -> Sequence[str]:
    return _with(folder, **{"model.layers.1.mlp.up_proj.weight": "model-4.safetensors"})


@INDEXES.add("An index that names a folder", 3, "shard-missing")
def an_index_that_names_a_folder(folder: Path) -> Sequence[str]:
    (folder / "delta" / "checkpoint-500").mkdir(parents=True)
    return _with(folder, **{"model.layers.1.mlp.up_proj.weight": "checkpoint-500"})


@INDEXES.add("An index that names a file outside its folder", 6, "index-escapes")
def an_index_that_escapes(folder: Path) -> Sequence[str]:
    return _with(folder, **{"model.norm.weight": f"../base/{WEIGHTS}"})


@INDEXES.add("An index that names an absolute path", 6, "index-escapes")
def an_index_with_an_absolute_path(folder: Path) -> Sequence[str]:
    return _with(folder, **{"model.norm.weight": "/etc/passwd"})


@INDEXES.add("A hostile file name in an index, with a terminal's escapes", 6, "index-escapes")
def a_hostile_file_name(folder: Path) -> Sequence[str]:
    return _with(folder, **{"model.norm.weight": "../\x1b[2J\nerror: forged"})


@INDEXES.add("100000 file names in an index that are not there", 3, "shard-missing")
def a_hundred_thousand_missing(folder: Path) -> Sequence[str]:
    return _with(folder, **{f"layers.{n}": f"{n:06d}.safetensors" for n in range(100_000)})

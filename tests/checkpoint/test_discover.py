"""Which files are the model: told by name alone, whatever else lies around."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from tests.support.folders import save, write_model
from weightsmith.checkpoint.discover import discover
from weightsmith.checkpoint.opening import open_checkpoint
from weightsmith.errors import (
    IndexEscapes,
    IndexInvalid,
    JsonInvalid,
    LfsPointer,
    NotRegularFile,
    NoWeights,
    ShardEmpty,
    ShardMissing,
    SourceFault,
    SourceNotFound,
    TensorMissing,
    TensorTwice,
    WeightsmithError,
)
from weightsmith.sources.recognise import open_model

TENSORS = {f"model.layers.{n}.weight": torch.full((4, 3), n, dtype=torch.float16) for n in range(9)}


def touch(folder: Path, names: Iterable[str]) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


# --- numbering ------------------------------------------------------------------------------------


def numbered(numbers: Iterable[int], total: int, stem: str = "pytorch_model") -> list[str]:
    suffix = "bin" if stem == "pytorch_model" else "safetensors"
    return [f"{stem}-{number:05d}-of-{total:05d}.{suffix}" for number in numbers]


@pytest.mark.parametrize(
    "numbers, total",
    [
        (range(1, 34), 33),  # transformers, and decapoda's 7B
        (range(42), 41),  # decapoda's 13B
        (range(41), 41),  # from 0, without the last
        ([1], 1),
    ],
)
@pytest.mark.parametrize("stem", ["model", "pytorch_model"])
def test_any_numbering_of_shards_is_whole(
    stem: str, numbers: Iterable[int], total: int, tmp_path: Path
) -> None:
    names = numbered(numbers, total, stem)
    assert discover(touch(tmp_path, names)).weights == tuple(names)


@pytest.mark.parametrize(
    "present, total, missing",
    [
        ([1, 2, 4], 4, [3]),
        ([2, 3], 3, [1]),
        ([1, 2], 3, [3]),
        ([0, 1, 3], 4, [2]),
        ([0, 2, 3, 4], 4, [1]),
        ([0], 3, [1, 2]),
    ],
)
def test_without_an_index_the_numbers_tell_which_shard_is_missing(
    present: list[int], total: int, missing: list[int], tmp_path: Path
) -> None:
    touch(tmp_path, numbered(present, total))
    with pytest.raises(ShardMissing) as caught:
        discover(tmp_path)
    assert list(caught.value.context) == numbered(missing, total)
    assert caught.value.exit_code == 3


def test_with_an_index_the_index_tells_which_shard_is_missing(tmp_path: Path) -> None:
    write_model(tmp_path, TENSORS, shards=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ShardMissing) as caught:
        open_checkpoint(tmp_path)
    assert caught.value.context == ("model-00002-of-00003.safetensors",)
    assert "model.safetensors.index.json" in str(caught.value)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("shards", [1, 2, 5])
def test_shards_hold_the_same_tensors_with_and_without_an_index(
    shards: int, index: bool, suffix: str, tmp_path: Path
) -> None:
    write_model(tmp_path, TENSORS, shards=shards, index=index, suffix=suffix)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.tensors.keys() == TENSORS.keys()
    assert len(checkpoint.files) == shards
    for name, tensor in TENSORS.items():
        raw = bytearray(checkpoint.tensors[name].info.nbytes)
        checkpoint.read_into(name, 0, memoryview(raw))
        assert bytes(raw) == tensor.numpy().tobytes()


# --- what else lies there -------------------------------------------------------------------------


def test_of_two_formats_safetensors_is_taken_and_the_rest_is_named(tmp_path: Path) -> None:
    write_model(tmp_path, TENSORS, shards=2, suffix="bin")
    write_model(tmp_path, TENSORS, shards=3)
    checkpoint = open_checkpoint(tmp_path)
    assert {file.name.rpartition(".")[2] for file in checkpoint.files} == {"safetensors"}
    assert checkpoint.notes == (
        f"not used: {', '.join(numbered([1, 2], 2))}, pytorch_model.bin.index.json",
    )


def test_a_training_folder_is_its_model_and_nothing_of_the_training(tmp_path: Path) -> None:
    write_model(tmp_path, TENSORS)
    training = [
        "optimizer.pt",
        "optimizer.bin",
        "scheduler.pt",
        "rng_state.pth",
        "rng_state_0.pth",
        "training_args.bin",
        "trainer_state.json",
        "pytorch_lora_weights.bin",
        "checkpoint-500/model.safetensors",
        "checkpoint-500/optimizer.pt",
        "global_step500/mp_rank_00_model_states.pt",
        "runs/Nov21_08-00-00/events.out.tfevents.1",
        "wandb/run.json",
    ]
    touch(tmp_path, training)
    found = discover(tmp_path)
    assert found.weights == ("model.safetensors",)
    assert found.sidecars == ("config.json",)
    assert set(found.left) == {
        *("optimizer.pt", "optimizer.bin", "scheduler.pt", "rng_state.pth", "rng_state_0.pth"),
        *("training_args.bin", "trainer_state.json", "pytorch_lora_weights.bin"),
        *("checkpoint-500/", "global_step500/", "runs/", "wandb/"),
    }


@pytest.mark.parametrize("name", ["optimizer.bin", "training_args.bin", "scheduler.pt", "rng.pth"])
def test_a_training_state_is_never_taken_for_a_model(name: str, tmp_path: Path) -> None:
    touch(tmp_path, [name, "config.json"])
    with pytest.raises(NoWeights) as caught:
        discover(tmp_path)
    assert caught.value.context == (f"found {name}",)


def test_a_git_clone_is_read_without_its_store_which_is_named(tmp_path: Path) -> None:
    write_model(tmp_path, TENSORS, suffix="bin")
    touch(tmp_path, [".git/lfs/objects/ab/cd/abcd", ".git/HEAD", ".gitattributes", ".gitignore"])
    touch(tmp_path, [".cache/huggingface/download/pytorch_model.bin.metadata"])
    found = discover(tmp_path)
    assert found.weights == ("pytorch_model.bin",)
    assert set(found.left) == {".git/", ".cache/", ".gitattributes", ".gitignore"}
    assert found.sidecars == ("config.json",)


def test_a_git_clone_without_its_files_says_so(tmp_path: Path) -> None:
    write_model(tmp_path, TENSORS, suffix="bin", shards=2)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:{0}\nsize 9976570304\n"
    (tmp_path / "pytorch_model-00002-of-00002.bin").write_text(pointer.format("a" * 64))
    with pytest.raises(LfsPointer) as caught:
        open_checkpoint(tmp_path)
    assert "9976570304 bytes are missing" in str(caught.value)
    assert caught.value.hint_text == "in that directory: git lfs pull"


def test_the_original_beside_a_converted_model_is_left(tmp_path: Path) -> None:
    write_model(tmp_path, TENSORS, shards=2)
    touch(tmp_path, ["original/consolidated.00.pth", "consolidated.00.pth", "params.json"])
    touch(tmp_path, ["consolidated.safetensors", "consolidated.safetensors.index.json"])
    found = discover(tmp_path)
    assert found.weights == tuple(numbered([1, 2], 2, "model"))
    assert set(found.left) == {
        *("consolidated.00.pth", "original/"),
        *("consolidated.safetensors", "consolidated.safetensors.index.json"),
    }


def test_a_shard_that_the_index_does_not_name_is_left(tmp_path: Path) -> None:
    write_model(tmp_path, TENSORS, shards=2)
    save(tmp_path / "model-extra.safetensors", {"extra": torch.ones(1)})
    checkpoint = open_checkpoint(tmp_path)
    assert "extra" not in checkpoint.tensors
    assert "not used: model-extra.safetensors" in checkpoint.notes


def test_a_tensor_that_the_index_does_not_list_is_left_and_said_so(tmp_path: Path) -> None:
    write_model(tmp_path, TENSORS, shards=2)
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_bytes())
    del index["weight_map"]["model.layers.3.weight"]
    path.write_text(json.dumps(index))
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.tensors.keys() == TENSORS.keys() - {"model.layers.3.weight"}
    (note,) = checkpoint.notes
    assert note.startswith(
        f"not used, as {path.name} does not list them: model.layers.3.weight in "
    )


def test_two_models_in_one_folder_are_refused_without_an_index(tmp_path: Path) -> None:
    write_model(tmp_path, TENSORS)
    save(tmp_path / "model-copy.safetensors", TENSORS)
    with pytest.raises(TensorTwice) as caught:
        open_checkpoint(tmp_path)
    assert caught.value.values["count"] == str(len(TENSORS))
    first = "model.layers.0.weight: model-copy.safetensors and model.safetensors"
    assert caught.value.context[0] == first


def test_files_are_sidecars_by_their_kind_and_all_others_are_listed(tmp_path: Path) -> None:
    wanted = {
        *("config.json", "generation_config.json", "tokenizer.model", "tokenizer.json"),
        *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
        *("merges.txt", "chat_template.jinja", "modeling_custom.py", "README.md", "LICENSE"),
        *("LICENSE.txt", "USE_POLICY.md", "preprocessor_config.json", "tokenizer.model.v3"),
        *("modules.json", "sentence_bert_config.json", "spm.model", "vocab.bpe", "bpe.codes"),
        *("quantize_config.json", "hf_quant_config.json", "recipe.yaml", "MODEL_LICENSE"),
        *("source.spm", "qwen.tiktoken", "notes.txt", "params.json", "selected_tags.csv"),
        *("1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"),
        *("query_0_SparseStaticEmbedding/config.json", "additional_chat_templates/rag.jinja"),
    }
    unwanted = {
        *(".gitattributes", "pytorch_model.bin.old", "a.sh", "picture.png", "train.log"),
        *("trainer_state.json", "all_results.json", "trainer_log.jsonl", "training_args.json"),
        *("adapter_config.json", "pytorch_model.bin.index.json", "zero_to_fp32.py", "log.txt"),
        *("1_Pooling/.hidden", "2_Dense/optimizer.pt", "SHA256SUMS.txt", "config.json.bak"),
    }
    folders = {"original", "checkpoint-5", "onnx", "eval", "__pycache__", "global_step5"}
    touch(tmp_path, [*wanted, *unwanted, "model.safetensors", "weightsmith.json"])
    touch(tmp_path, [f"{folder}/config.json" for folder in folders])
    found = discover(tmp_path)
    assert set(found.sidecars) == wanted
    assert set(found.left) == unwanted | {f"{folder}/" for folder in folders}


def test_a_large_file_beside_the_weights_is_no_sidecar_unasked(tmp_path: Path) -> None:
    write_model(tmp_path, TENSORS)
    with (tmp_path / "corpus.txt").open("wb") as file:
        file.truncate(64_000_001)
    found = discover(tmp_path)
    assert found.sidecars == ("config.json",)
    assert found.large == {"corpus.txt": 64_000_001}
    assert found.left == ()


@pytest.mark.parametrize("name", [b"README_f\xfcr.md", b"README\n.md", b"LICENSE\x1b[2J"])
def test_a_sidecar_whose_name_cannot_be_printed_is_left(name: bytes, tmp_path: Path) -> None:
    write_model(tmp_path, TENSORS)
    (tmp_path / os.fsdecode(name)).touch()
    assert discover(tmp_path).sidecars == ("config.json",)


# --- what is not what it seems --------------------------------------------------------------------


def test_links_in_circles_and_into_nowhere_harm_nobody(tmp_path: Path) -> None:
    write_model(tmp_path, TENSORS)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "up").symlink_to(tmp_path)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.tensors.keys() == TENSORS.keys()
    assert checkpoint.notes == ("not used: gone, self, up/",)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("kind", ["fifo", "device", "socket", "loop", "gone"])
def test_what_is_no_file_is_refused_and_never_waited_for(
    kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    path = tmp_path / name
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                monkeypatch.chdir(tmp_path)  # a socket's whole path may have 108 characters
                listener.bind(name)
        case "loop":
            path.symlink_to(path)
        case _:
            path.symlink_to(tmp_path / "nowhere")
    expected = NotRegularFile if kind in {"fifo", "device", "socket"} else SourceFault
    with pytest.raises(expected) as caught:
        open_checkpoint(tmp_path)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "sidecar", ["config.json", "tokenizer.model", "model.safetensors.index.json"]
)
def test_a_fifo_as_a_sidecar_or_index_is_refused_and_never_waited_for(
    sidecar: str, tmp_path: Path
) -> None:
    write_model(tmp_path, TENSORS)
    (tmp_path / sidecar).unlink(missing_ok=True)
    os.mkfifo(tmp_path / sidecar)
    with pytest.raises(NotRegularFile):
        open_checkpoint(tmp_path).read_sidecar(sidecar)


def test_an_empty_weight_file_is_named(tmp_path: Path) -> None:
    write_model(tmp_path, TENSORS, shards=2)
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"")
    with pytest.raises(ShardEmpty, match="model-00001-of-00002"):
        open_checkpoint(tmp_path)


def _index(folder: Path, content: object) -> Path:
    write_model(folder, TENSORS, shards=2)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "model.safetensors.index.json").write_text(text)
    return folder


FIRST = "model-00001-of-00002.safetensors"


@pytest.mark.parametrize(
    "content, error",
    [
        ("", JsonInvalid),
        ("{", JsonInvalid),
        ("[" * 100_000, JsonInvalid),
        ('{"weight_map": {"a": "b", "a": "c"}}', JsonInvalid),
        ([], IndexInvalid),
        ({}, IndexInvalid),
        ({"weight_map": []}, IndexInvalid),
        ({"weight_map": {"a": 1}}, IndexInvalid),
        ({"weight_map": {"a": "../model.safetensors"}}, IndexEscapes),
        ({"weight_map": {"a": "/etc/passwd"}}, IndexEscapes),
        ({"weight_map": {"a": "sub/model.safetensors"}}, IndexEscapes),
        ({"weight_map": {"a": ".."}}, IndexEscapes),
        ({"weight_map": {"a": "C:model"}}, IndexEscapes),
        ({"weight_map": {"a": "gone.safetensors"}}, ShardMissing),
        ({"weight_map": {"no.such.tensor": FIRST}}, TensorMissing),
    ],
)
def test_an_index_that_lies_is_refused(
    content: object, error: type[WeightsmithError], tmp_path: Path
) -> None:
    with pytest.raises(error):
        open_checkpoint(_index(tmp_path, content))


def test_an_index_that_names_the_wrong_file_for_a_tensor_is_refused(tmp_path: Path) -> None:
    weight_map = dict.fromkeys(TENSORS, FIRST)
    with pytest.raises(TensorMissing) as caught:
        open_checkpoint(_index(tmp_path, {"weight_map": weight_map}))
    assert set(caught.value.context) == {name for name in TENSORS if int(name[13]) % 2}


def test_an_index_that_names_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ShardMissing) as caught:
        open_checkpoint(_index(tmp_path, {"weight_map": {"a": "folder"}}))
    assert caught.value.context == ("folder",)


HOSTILE = "evil\x1b[2J\nerror: forged\r\u202eword"


def test_a_hostile_tensor_name_cannot_drive_a_terminal(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", {HOSTILE: torch.zeros(1)})
    save(tmp_path / "model-b.safetensors", {HOSTILE: torch.zeros(1)})
    with pytest.raises(TensorTwice) as caught:
        open_checkpoint(tmp_path)
    _assert_tame(caught.value)
    assert "evil\\x1b[2J\\nerror: forged\\r\\u202eword" in caught.value.context[0]


def test_a_hostile_file_name_cannot_drive_a_terminal(tmp_path: Path) -> None:
    (tmp_path / f"model{HOSTILE}.safetensors").write_bytes(b"")
    with pytest.raises(ShardEmpty) as caught:
        open_checkpoint(tmp_path)
    _assert_tame(caught.value)


def _assert_tame(error: WeightsmithError) -> None:
    for line in (str(error), error.hint_text, *error.context):
        assert line.isprintable()


# --- the source itself ----------------------------------------------------------------------------


def test_a_source_that_is_not_there_names_the_nearest_that_is(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound) as caught:
        discover(tmp_path / "gone")
    assert caught.value.context == (f"{tmp_path} exists",)
    with pytest.raises(SourceNotFound):
        open_model(tmp_path / "gone")


@pytest.mark.parametrize("name", ["", "x" * 300, "loop", "file", "file/within", "a\0b"])
def test_a_source_that_is_no_directory_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(SourceFault):
        open_model(tmp_path / name if name else "")  # "" is not the working directory


def test_an_empty_directory_holds_no_weights(tmp_path: Path) -> None:
    with pytest.raises(NoWeights) as caught:
        open_checkpoint(tmp_path)
    assert caught.value.context == ()

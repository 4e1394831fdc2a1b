"""An index is a map of plain file names, and ours is what transformers writes."""

import json
from pathlib import Path

import pytest

from weightsmith.errors import IndexEscapes, IndexInvalid, JsonInvalid
from weightsmith.formats.index import build_index, parse_index

INDEX = Path("dir/model.safetensors.index.json")

ESCAPES = [
    "../other/model.safetensors",
    "..",
    ".",
    "",
    "/etc/passwd",
    "sub/model.safetensors",
    "./model.safetensors",
    "..\\model.safetensors",
    "C:model.safetensors",
    "C:\\model.safetensors",
    "\\\\server\\share",
    "model.safetensors:stream",
    "model.safetensors\0.txt",
]

INVALID = {
    "a list": [],
    "no weight_map": {"metadata": {}},
    "weight_map is a list": {"weight_map": ["a"]},
    "weight_map is null": {"weight_map": None},
    "a number for a file": {"weight_map": {"a": 1}},
    "null for a file": {"weight_map": {"a": None}},
    "metadata is a list": {"weight_map": {}, "metadata": []},
}


@pytest.mark.parametrize("name", ESCAPES)
def test_an_index_may_only_name_files_beside_it(name: str) -> None:
    raw = json.dumps({"weight_map": {"fine": "model.safetensors", "bad": name}}).encode()
    with pytest.raises(IndexEscapes) as caught:
        parse_index(raw, INDEX)
    assert str(INDEX) in str(caught.value)
    assert caught.value.values["name"]


def test_the_escaping_name_is_shown_without_its_control_characters() -> None:
    with pytest.raises(IndexEscapes, match=r"\.\./\\x1b\[2J"):
        parse_index(json.dumps({"weight_map": {"a": "../\x1b[2J"}}).encode(), INDEX)


@pytest.mark.parametrize("content", INVALID.values(), ids=INVALID.keys())
def test_an_index_that_is_no_map_of_names_is_refused(content: object) -> None:
    with pytest.raises(IndexInvalid) as caught:
        parse_index(json.dumps(content).encode(), INDEX)
    assert str(INDEX) in str(caught.value)


def test_a_tensor_listed_twice_is_refused() -> None:
    with pytest.raises(JsonInvalid, match="'a' is repeated"):
        parse_index(b'{"weight_map": {"a": "1.safetensors", "a": "2.safetensors"}}', INDEX)


@pytest.mark.parametrize("extra", [{}, {"metadata": None}, {"metadata": {}}, {"more": 1}])
def test_all_but_the_weight_map_may_be_absent(extra: dict[str, object]) -> None:
    names = {"a": "model-00001-of-00002.bin", "b": "...", "c": "with space \u00e9.bin"}
    index = parse_index(json.dumps({"weight_map": names, **extra}).encode(), INDEX)
    assert index.weight_map == names
    assert index.metadata == {}


def test_our_index_has_the_bytes_that_transformers_writes(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=32,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path, max_shard_size="8KB")
    written = (tmp_path / "model.safetensors.index.json").read_bytes()
    index = parse_index(written, INDEX)
    assert len(set(index.weight_map.values())) > 1
    total_size, total_parameters = (
        index.metadata[key] for key in ("total_size", "total_parameters")
    )
    assert isinstance(total_size, int)
    assert isinstance(total_parameters, int)
    backwards = dict(reversed(index.weight_map.items()))
    assert build_index(backwards, total_size, total_parameters) == written


def test_the_index_bytes_are_golden() -> None:
    assert build_index({"b": "2.safetensors", "a\u00e9": "1.safetensors"}, 12) == (
        b"{\n"
        b'  "metadata": {\n'
        b'    "total_size": 12\n'
        b"  },\n"
        b'  "weight_map": {\n'
        b'    "a\\u00e9": "1.safetensors",\n'
        b'    "b": "2.safetensors"\n'
        b"  }\n"
        b"}\n"
    )

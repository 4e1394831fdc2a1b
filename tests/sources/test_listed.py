"""An index is held against the files that it lists: what it leaves out, and what stands twice."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.folders import save, write_model
from weightsmith.errors import CopiesDiffer, IndexIncomplete
from weightsmith.ops.verify.verify import verify
from weightsmith.sources.recognise import open_model

INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
CONFIG = {"model_type": "of_nobody", "num_hidden_layers": 3}


def layers(count: int = 4) -> dict[str, Tensor]:
    named = {f"model.layers.{n}.up.weight": torch.full((4, 3), n).half() for n in range(count)}
    return {"model.embed_tokens.weight": torch.ones(9, 3).half(), **named}


def without(folder: Path, *names: str) -> None:
    """Leave tensors out of the index."""
    index = json.loads((folder / INDEX).read_bytes())
    for name in names:
        del index["weight_map"][name]
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize("name", ["model.layers.1.up.weight", "model.embed_tokens.weight"])
def test_a_tensor_that_the_model_needs_and_the_index_leaves_out_is_refused_by_name(
    name: str, tmp_path: Path
) -> None:
    write_model(tmp_path, layers(), config=CONFIG, shards=2)
    without(tmp_path, name)
    with pytest.raises(IndexIncomplete) as caught:
        open_model(tmp_path)
    assert any(line.startswith(f"{name} is in model-") for line in caught.value.context)
    (check,) = verify(tmp_path).checks
    assert check.verdict == "FAIL"
    assert any(name in detail for detail in check.details)


@pytest.mark.parametrize(
    "name, config",
    [
        ("model.layers.3.up.weight", CONFIG),  # beyond the layers of the config
        ("model.layers.1.up.weight", {}),  # which says nothing of layers
        ("lm_head.weight", {**CONFIG, "tie_word_embeddings": True}),
        ("extra", CONFIG),
    ],
)
def test_one_that_it_does_not_need_is_left_and_named(
    name: str, config: dict[str, Any], tmp_path: Path
) -> None:
    weights = {**layers(), "lm_head.weight": torch.ones(9, 3).half(), "extra": torch.ones(2)}
    write_model(tmp_path, weights, config=config, shards=2)
    without(tmp_path, name)
    checkpoint = open_model(tmp_path)
    assert name not in checkpoint.tensors
    (note,) = checkpoint.notes
    assert note.startswith(f"not used, as {INDEX} does not list them: {name} in model-")


def test_a_head_that_the_config_does_not_tie_is_needed(tmp_path: Path) -> None:
    weights = {**layers(), "lm_head.weight": torch.ones(9, 3).half()}
    config = {**CONFIG, "text_config": {"tie_word_embeddings": False}}
    write_model(tmp_path, weights, config=config, shards=2)
    without(tmp_path, "lm_head.weight")
    with pytest.raises(IndexIncomplete, match="1 tensor"):
        open_model(tmp_path)


def test_a_table_of_tensors_tells_where_the_architecture_is_known(tmp_path: Path) -> None:
    numbers = {"vocab_size": 9, "hidden_size": 4, "intermediate_size": 6, "num_attention_heads": 2}
    config = {"model_type": "llama", "num_hidden_layers": 1, **numbers}
    weights = {"model.norm.weight": torch.ones(4), "a.buffer": torch.ones(1), "b": torch.ones(1)}
    write_model(tmp_path, weights, config=config, shards=2)
    without(tmp_path, "a.buffer")
    assert "a.buffer" not in open_model(tmp_path).tensors
    without(tmp_path, "model.norm.weight")
    with pytest.raises(IndexIncomplete):
        open_model(tmp_path)


def with_copy(folder: Path, name: str, value: Tensor) -> None:
    """Put another tensor of a name into the shard that the index does not name for it."""
    weights = layers()
    index = json.loads((folder / INDEX).read_bytes())["weight_map"]
    other = SECOND if index[name] == FIRST else FIRST
    held = {n: t for n, t in weights.items() if index[n] == other}
    save(folder / other, {**held, name: value})


NAME = "model.layers.1.up.weight"


def test_another_version_in_another_shard_is_refused_by_name(tmp_path: Path) -> None:
    write_model(tmp_path, layers(), config=CONFIG, shards=2)
    with_copy(tmp_path, NAME, torch.zeros(4, 3).half())
    with pytest.raises(CopiesDiffer) as caught:
        open_model(tmp_path)
    assert NAME in caught.value.context[0]
    assert FIRST in caught.value.context[0]
    assert SECOND in caught.value.context[0]


@pytest.mark.parametrize("config", [CONFIG, {}])
def test_an_equal_copy_or_one_that_is_not_needed_is_left_and_named(
    config: dict[str, Any], tmp_path: Path
) -> None:
    write_model(tmp_path, layers(), config=config, shards=2)
    with_copy(tmp_path, NAME, layers()[NAME] if config else torch.zeros(4, 3).half())
    checkpoint = open_model(tmp_path)
    assert torch.equal(checkpoint[NAME].torch(), layers()[NAME])
    (note,) = checkpoint.notes
    assert note.startswith(f"not used, as {INDEX} has them in other files: {NAME} in ")

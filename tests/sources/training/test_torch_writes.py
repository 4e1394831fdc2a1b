"""What the torch of today writes of tensors of every kind comes out as torch loads it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.errors import PickleInvalid
from weightsmith.sources.recognise import open_model

STATE = {
    "half": torch.arange(12, dtype=torch.float16).reshape(3, 4),
    "float": torch.randn(5, 3, generator=torch.Generator().manual_seed(1)),
    "integer": torch.arange(7),
    "flags": torch.tensor([True, False]),
    "scalar": torch.tensor(2.5, dtype=torch.bfloat16),
    "narrow": torch.arange(20, dtype=torch.float32)[4:9],
    "turned": torch.arange(6, dtype=torch.float32).reshape(2, 3).t(),
}


def assert_same(checkpoint: Checkpoint) -> None:
    assert set(checkpoint.tensors) == set(STATE)
    for name, tensor in STATE.items():
        assert checkpoint.tensors[name].info.shape == tuple(tensor.shape)
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        assert checkpoint.read_small(name) == raw, name


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # one process is meant
@pytest.mark.parametrize(
    "settings",
    [{}, {"single_file_per_rank": False}, {"thread_count": 3}],
    ids=["one file", "a file a tensor", "three threads"],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_distributed_checkpoint_of_any_kind(
    tmp_path: Path, settings: dict[str, Any], *, wrapped: bool
) -> None:
    # Half a second to import, which each worker would spend that only looks for its tests.
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    state: dict[str, Any] = {"model": STATE, "step": 3, "optimizer": {"lr": torch.ones(2)}}
    writer = FileSystemWriter(tmp_path / "ckpt", **settings)
    save(state if wrapped else dict(STATE), storage_writer=writer, no_dist=True)
    found = open_model(tmp_path / "ckpt")
    assert_same(found)
    assert any("optimizer" in note for note in found.notes) == wrapped


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # one process is meant
def test_rates_beside_a_distributed_checkpoints_model_are_none(tmp_path: Path) -> None:
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    rates = {"lr": torch.ones(2), "state_dict": {"seen": torch.tensor(3)}}
    state = {"trainer": {"policy": STATE}, **rates}
    save(state, storage_writer=FileSystemWriter(tmp_path / "ckpt"), no_dist=True)
    found = open_model(tmp_path / "ckpt")
    assert_same(found)
    assert any("not used: state_dict, tensors at the top" in note for note in found.notes)


@pytest.mark.parametrize("wrapper", ["", "model", "module", "state_dict", "model_state_dict"])
def test_a_single_file(tmp_path: Path, wrapper: str) -> None:
    content = {wrapper: STATE, "rng": torch.ones(3), "epoch": 2} if wrapper else STATE
    torch.save(content, tmp_path / "last.ckpt")
    assert_same(open_model(tmp_path / "last.ckpt"))
    assert_same(open_model(tmp_path))


def test_the_only_map_of_tensors_is_the_model_whatever_it_is_called(tmp_path: Path) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1}]}
    torch.save({"net": STATE, "opt": optimizer}, tmp_path / "last.pt")
    found = open_model(tmp_path)
    assert_same(found)
    assert any("not used: opt" in note for note in found.notes)


def test_of_several_maps_of_tensors_none_is_taken(tmp_path: Path) -> None:
    torch.save({"net": STATE, "critic": STATE}, tmp_path / "last.pt")
    with pytest.raises(PickleInvalid, match="2 are in it: net, critic"):
        open_model(tmp_path)


def test_maps_within_the_map_keep_their_names_with_dots(tmp_path: Path) -> None:
    nested = {"encoder": {"layer": {"w": torch.ones(2)}}, "head.w": torch.ones(3)}
    torch.save({"model": nested, "args": {"lr": 1}}, tmp_path / "nested.pt")
    assert sorted(open_model(tmp_path / "nested.pt").tensors) == ["encoder.layer.w", "head.w"]

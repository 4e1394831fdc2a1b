"""The largest models are opened and planned by their headers, on ghosts of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ghosts import dense_405b, experts_671b, write_ghost
from weightsmith.ops.apply_delta import plan_apply_delta
from weightsmith.ops.convert import plan_convert
from weightsmith.ops.inspect import inspect


@pytest.fixture
def ghosts(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for each in tmp_path.rglob("*.safetensors"):  # a tool that copies holes would fill a disk
        each.unlink()


def test_a_ghost_takes_no_room(ghosts: Path) -> None:
    folder = write_ghost(ghosts / "405b", dense_405b())
    assert sum(path.stat().st_size for path in folder.iterdir()) > 811e9
    assert sum(path.stat().st_blocks for path in folder.iterdir()) * 512 < 5e6


def test_405b_parameters_are_planned_by_their_headers(ghosts: Path) -> None:
    ghost = dense_405b()
    base = write_ghost(ghosts / "base", ghost)
    delta = write_ghost(ghosts / "delta", ghost, delta=True)
    seen = inspect(base)
    assert (seen.kind, seen.tensors, seen.nbytes) == ("model", len(ghost.infos), ghost.nbytes)
    plan = plan_apply_delta(base, delta, target=ghosts / "target").plan
    assert len(plan.tensors) == len(ghost.infos) == 1137
    assert {tensor.codec for tensor in plan.tensors} == {"add@1"}
    assert sum(shard.data_nbytes for shard in plan.shards) == ghost.nbytes


@pytest.mark.slow
def test_671b_parameters_in_90_000_tensors_are_planned_by_their_headers(ghosts: Path) -> None:
    ghost = experts_671b()
    assert 670e9 < ghost.parameters < 672e9
    base = write_ghost(ghosts / "base", ghost)
    assert inspect(base).parameters == ghost.parameters
    plan = plan_convert(base, ghosts / "target").plan
    assert len(plan.tensors) == len(ghost.infos) == 90_427
    assert sum(shard.data_nbytes for shard in plan.shards) == ghost.nbytes
    assert plan.digest == plan_convert(base, ghosts / "target").plan.digest
    wide = plan_convert(base, ghosts / "target", dequantize=True).plan
    assert len(wide.tensors) == len(experts_671b(dtype="BF16").infos) == 45_395


@pytest.mark.slow
def test_an_additive_delta_of_671b_parameters_is_planned_by_its_headers(ghosts: Path) -> None:
    ghost = experts_671b(dtype="BF16")
    base = write_ghost(ghosts / "base", ghost)
    delta = write_ghost(ghosts / "delta", ghost, delta=True)
    plan = plan_apply_delta(base, delta, target=ghosts / "target").plan
    assert len(plan.tensors) == len(ghost.infos)
    assert sum(shard.data_nbytes for shard in plan.shards) == ghost.nbytes

"""What a delta will come to is told before it is made, and which base it is to be made to."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

import weightsmith as library
from tests.support.command_line import Weightsmith
from tests.support.folders import write_model
from weightsmith.ops.deltas.estimate import estimate

Weights = dict[str, Tensor]
write = partial(write_model, config={"model_type": "x"})


def model(seed: int) -> Weights:
    """Layers of one kind, five MB in all, and a little."""
    torch.manual_seed(seed)
    layers = {f"layers.{i}.up.weight": torch.randn(400, 700) * 0.02 for i in range(9)}
    weights = {**layers, "norm.weight": torch.ones(700)}
    return {name: tensor.bfloat16() for name, tensor in weights.items()}


def tuned(weights: Weights, change: float, *, layers: int = 9) -> Weights:
    torch.manual_seed(99)
    return {
        name: (each.float() + change * torch.randn(each.shape)).bfloat16()
        if name.startswith("layers.") and int(name.split(".")[1]) < layers
        else each
        for name, each in weights.items()
    }


@pytest.fixture
def folders(tmp_path: Path) -> Callable[[float, int], tuple[Path, Path]]:
    def make(change: float, layers: int) -> tuple[Path, Path]:
        base = write(tmp_path / "base", model(0))
        return base, write(tmp_path / "target", tuned(model(0), change, layers=layers))

    return make


@pytest.mark.parametrize("change, layers", [(0.001, 9), (0.00002, 9), (0.001, 4), (0.0, 0)])
def test_a_sample_tells_the_size_within_its_error(
    change: float,
    layers: int,
    folders: Callable[[float, int], tuple[Path, Path]],
    tmp_path: Path,
) -> None:
    base, target = folders(change, layers)
    job = library.plan_make_delta(base, target, tmp_path / "delta")
    rules = [rule for shard in job.plan.shards for rule in shard.tensors]
    inputs, coded = job.bindings.inputs, job.plan.delta.coded
    whole = estimate(rules, inputs, coded=coded)
    assert whole.read_nbytes == whole.target_nbytes
    assert whole.error_nbytes == 0
    made = job.run()
    assert isinstance(made, library.MadeDelta)
    assert whole.nbytes == pytest.approx(made.nbytes, rel=0.02, abs=4000)
    sample = estimate(rules, inputs, coded=coded, pieces=5)
    assert sample.read_nbytes < whole.read_nbytes / 1.5
    assert abs(sample.changed - whole.changed) <= 2 * sample.error_changed + 0.005
    assert abs(sample.nbytes - whole.nbytes) <= 2 * sample.error_nbytes + 0.05 * whole.nbytes
    assert estimate(rules, inputs, coded=coded, pieces=5) == sample


def test_a_dry_run_tells_what_to_expect(
    weightsmith: Weightsmith, folders: Callable[[float, int], tuple[Path, Path]], tmp_path: Path
) -> None:
    base, target = folders(0.001, 9)
    arguments = ["make-delta", "--base", base, "--target", target, "--delta", tmp_path / "d"]
    done = weightsmith(*map(str, arguments), "--dry-run", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)["estimate"]
    made = library.make_delta(base, target, tmp_path / "d")
    assert found["nbytes"] == pytest.approx(made.nbytes, rel=0.02)
    assert 0.5 < found["changed"] < 1


def test_the_nearest_base_comes_first_and_strangers_last(
    weightsmith: Weightsmith, tmp_path: Path
) -> None:
    write(tmp_path / "near", tuned(model(0), 0.0001))
    write(tmp_path / "far", tuned(model(0), 0.004))
    write(tmp_path / "stranger", model(5))
    write(tmp_path / "other", {"elsewhere": torch.randn(300, 300)})
    target = write(tmp_path / "target", model(0))
    names = ["stranger", "far", "other", "near", "nowhere"]
    ranked = library.rank_bases(target, [tmp_path / name for name in names])
    assert [Path(each.base).name for each in ranked[:2]] == ["near", "far"]
    assert all(each.estimate is None and each.reason for each in ranked[2:])
    done = weightsmith(
        "inspect", str(target), "--bases", *(str(tmp_path / n) for n in names[:4]), "-q"
    )
    assert done.code == 0, done.err
    assert done.out.split() == [str(tmp_path / "near"), str(tmp_path / "far")]

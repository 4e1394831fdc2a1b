"""Damaged files of a delta are made again of its base and its target, byte for byte."""

import random
from pathlib import Path

import pytest
import torch

from tests.support.damage import HARMS
from tests.support.delta_models import trained, write_pair
from tests.support.folders import contents, copied, load, state, write_model
from weightsmith.engine.manifest import read_manifest
from weightsmith.ops.fix.fix import fix_files
from weightsmith.ops.make_delta import make_delta
from weightsmith.ops.verify.verify import verify

FIRST, SECOND = (f"delta-{number:05d}-of-00002.safetensors" for number in (1, 2))
INDEX = "delta.safetensors.index.json"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a target that shares tensors between its files, and deltas of three kinds."""
    folder = tmp_path_factory.mktemp("world")
    base, target = write_pair(folder, shards=2)
    tensors = load(target)
    first, last = min(tensors), max(tensors)
    tied = {**tensors, f"{last}.again": tensors[first].clone()}
    (target / "model.safetensors.index.json").unlink()
    for path in target.glob("*.safetensors"):
        path.unlink()
    write_model(target, tied, shards=2)
    make_delta(base, target, folder / "exact")
    make_delta(base, target, folder / "portable", portable=True)
    tuned = {name: trained(each, seed=2) for name, each in load(base).items()}
    write_model(folder / "tuned", tuned, shards=2)
    make_delta(base, folder / "tuned", folder / "add", codec="add")
    return folder


def delta_of(world: Path, kind: str, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of a delta, which a test damages, and the delta's target."""
    target = world / ("tuned" if kind == "add" else "target")
    return copied(world / kind, tmp_path / kind), target


def damage(path: Path, how: str = "flip") -> None:
    if how == "gone":
        path.unlink()
        return
    path.write_bytes(HARMS[how](bytearray(path.read_bytes()), random.Random(1)))


@pytest.mark.parametrize("how", ["gone", *HARMS])
@pytest.mark.parametrize("kind", ["exact", "portable", "add"])
@pytest.mark.sampled(5)
def test_a_file_of_a_delta_is_made_again_of_base_and_target(
    world: Path, tmp_path: Path, kind: str, how: str
) -> None:
    delta, target = delta_of(world, kind, tmp_path)
    name = SECOND if kind != "add" else "model.safetensors"
    damage(delta / name, how)
    before = [each for each in state(delta)[1:] if not each[0].endswith(name)]
    (told,) = fix_files(delta, source=target, base=world / "base", dry_run=True).files
    assert (told.file, told.outcome) == (name, "can be fixed")
    (fix,) = fix_files(delta, source=target, base=world / "base").files
    assert (fix.file, fix.outcome) == (name, "fixed")
    assert contents(delta) == contents(world / kind)
    assert [each for each in state(delta)[1:] if not each[0].endswith(name)] == before


@pytest.mark.parametrize("kind", ["exact", "add"])
def test_all_files_of_a_delta_come_back_at_once(world: Path, tmp_path: Path, kind: str) -> None:
    delta, target = delta_of(world, kind, tmp_path)
    for path in sorted(delta.iterdir()):
        if path.name != "weightsmith.json":
            damage(path, "cut")
    found = fix_files(delta, source=target, base=world / "base")
    assert found.complete, found
    assert contents(delta) == contents(world / kind)


def test_what_another_base_or_target_gives_replaces_nothing(world: Path, tmp_path: Path) -> None:
    delta, target = delta_of(world, "exact", tmp_path)
    damage(delta / FIRST)
    damage(delta / SECOND)
    before = state(delta)[1:]
    floats = (torch.float16, torch.bfloat16, torch.float32)
    other = {n: trained(t, seed=9) if t.dtype in floats else t for n, t in load(target).items()}
    wrong = write_model(tmp_path / "wrong", other, shards=2)
    for base, tuned in ((world / "base", wrong), (world / "tuned", target)):
        found = fix_files(delta, source=tuned, base=base)
        assert {each.outcome for each in found.files} == {"left"}
        assert found.hints == ["weightsmith make-delta --base BASE --target TARGET -o NEW"]
        assert state(delta)[1:] == before


def test_without_a_base_it_is_said_that_it_is_needed(world: Path, tmp_path: Path) -> None:
    delta, target = delta_of(world, "exact", tmp_path)
    damage(delta / FIRST)
    damage(delta / "README.md")
    readme, weights = fix_files(delta, source=target).files
    if readme.file == FIRST:
        readme, weights = weights, readme
    assert readme.outcome == "fixed"
    assert (weights.outcome, "no base is named" in weights.how) == ("left", True)
    assert weights.hint == f"weightsmith verify {delta} --fix --from {target} --base BASE"
    (left,) = fix_files(delta).files
    assert left.hint == f"weightsmith verify {delta} --fix --from TARGET --base BASE"


def test_a_fixed_delta_makes_its_target_again(world: Path, tmp_path: Path) -> None:
    delta, target = delta_of(world, "exact", tmp_path)
    damage(delta / SECOND, "zero")
    assert fix_files(delta, source=target, base=world / "base").complete
    report = verify(delta, base=world / "base", against=target)
    verdicts = {check.name: check.verdict for check in report.checks}
    assert (verdicts["digests"], verdicts["against"]) == ("pass", "pass")
    assert read_manifest(delta) == read_manifest(world / "exact")

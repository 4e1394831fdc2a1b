"""Where the target may be, and what in its place stops the run before anything is written."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.folders import contents, copied, hidden, state, write_model
from weightsmith.engine.options import Options
from weightsmith.errors import (
    BaseIsDelta,
    InTheWay,
    NoTargetName,
    TargetExists,
    TargetIsInput,
    TargetUnnamed,
    TargetUnwritable,
    WeightsmithError,
)
from weightsmith.ops.apply_delta import apply_delta, plan_apply_delta, target_name
from weightsmith.ops.convert import convert
from weightsmith.ops.make_delta import make_delta


class Sides:
    """Base and delta that a test may link to."""

    def __init__(self, vectors: Path, home: Path) -> None:
        self.home = home
        self.base, self.delta = (
            copied(vectors / "vicuna_v1_1" / side, home / "inputs" / side)
            for side in ("base", "delta")
        )
        self._before = state(home / "inputs")

    def apply(self, target: Path | str, **options: Any) -> None:
        apply_delta(self.base, self.delta, target=target, repair=False, options=Options(**options))

    def assert_refused(self, target: Path, error: type[WeightsmithError], **options: Any) -> str:
        with pytest.raises(error) as caught:
            self.apply(target, **options)
        assert state(self.home / "inputs") == self._before
        return str(caught.value)


@pytest.fixture
def sides(vectors: Path, tmp_path: Path) -> Sides:
    return Sides(vectors, tmp_path)


FULL = {"config.json", "model.safetensors", "tokenizer.model", "weightsmith.json"}


@pytest.mark.parametrize("target", ["a", "a/inside", "d1", "d2", "."])
def test_no_link_of_a_chain_is_the_target(tmp_path: Path, target: str) -> None:
    for number, name in enumerate("abc"):
        write_model(tmp_path / name, {"model.w": torch.full((4, 4), float(number))})
    make_delta(tmp_path / "a", tmp_path / "b", tmp_path / "d1")
    make_delta(tmp_path / "b", tmp_path / "c", tmp_path / "d2")
    before = state(tmp_path)
    chain = "+".join(str(tmp_path / name) for name in ("a", "d1", "d2"))
    deltas = [tmp_path / "d1", tmp_path / "d2"]
    out, overwrite = tmp_path / target, Options(overwrite=True)
    with pytest.raises(TargetIsInput):
        convert(chain, out, options=overwrite)
    with pytest.raises(TargetIsInput):
        apply_delta(tmp_path / "a", deltas, target=out, options=overwrite)
    assert state(tmp_path) == before


def test_an_empty_directory_is_no_obstacle(sides: Sides, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    sides.apply(target)
    assert contents(target).keys() >= FULL
    assert hidden(tmp_path) == []


def test_missing_parents_are_made(sides: Sides, tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "out"
    sides.apply(target)
    assert contents(target).keys() >= FULL


def test_a_relative_target_and_a_trailing_slash_mean_what_they_say(
    sides: Sides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sides.apply("new/../other/out/")
    assert contents(tmp_path / "other" / "out").keys() >= FULL
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "place",
    ["base", "delta", "base/out", "delta/a/b", ".", "link to base", "link to parent/base/out"],
)
def test_a_target_that_overlaps_an_input_is_refused(
    place: str, overwrite: bool, sides: Sides, tmp_path: Path
) -> None:
    inputs = tmp_path / "inputs"
    (tmp_path / "link to base").symlink_to(sides.base)
    (tmp_path / "link to parent").symlink_to(inputs)
    target = tmp_path / place if place.startswith("link") else inputs / place
    sides.assert_refused(target, TargetIsInput, overwrite=overwrite)
    assert hidden(tmp_path) == hidden(inputs) == []


def test_a_target_that_holds_the_files_behind_an_inputs_links_is_refused(
    sides: Sides, tmp_path: Path
) -> None:
    """A folder of links into a cache or into last week's target: replacing that would break it."""
    target = tmp_path / "last week"
    target.mkdir()
    for path in sides.base.glob("*.bin"):
        path.rename(target / path.name)
        path.symlink_to(target / path.name)
    before = state(sides.base, target)
    for overwrite in (False, True):
        with pytest.raises(TargetIsInput):
            sides.apply(target, overwrite=overwrite)
    assert state(sides.base, target) == before


def test_the_same_directory_as_base_and_delta_is_refused_however_it_is_spelled(
    sides: Sides, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(sides.base)
    for delta in (sides.base, tmp_path / "link", sides.base / ".." / "base"):
        with pytest.raises(BaseIsDelta):
            plan_apply_delta(sides.base, delta, target=tmp_path / "out")


@pytest.mark.parametrize("way", ["file", "folder", "link", "broken link", "looping link", "fifo"])
def test_what_has_the_name_is_left_as_it_is(way: str, sides: Sides, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    target = outputs / "out"
    (outputs / "elsewhere").mkdir(parents=True)
    match way:
        case "file":
            target.write_text("mine")
        case "folder":
            target.mkdir()
            (target / "mine.txt").touch()
        case "link":
            target.symlink_to(outputs / "elsewhere")
        case "broken link":
            target.symlink_to(outputs / "gone")
        case "looping link":
            target.symlink_to(target)
        case _:
            os.mkfifo(target)
    before = sorted(path.name for path in outputs.rglob("*"))
    message = sides.assert_refused(target, TargetExists)
    assert ("nothing in it says" if target.is_dir() else "no directory") in message
    assert sorted(path.name for path in outputs.rglob("*")) == before


def test_a_target_without_a_name_is_not_the_working_directory(
    sides: Sides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from an unset variable in a script: ``-o "$OUT" --overwrite``."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "mine.txt").touch()
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(TargetUnnamed):
        sides.apply("", overwrite=True)
    assert list(contents(tmp_path / "work")) == ["mine.txt"]


def test_a_target_below_a_file_is_refused(sides: Sides, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    sides.assert_refused(tmp_path / "file" / "out", InTheWay)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("length", [240, 255, 256, 5000])
def test_a_name_too_long_for_the_system_is_refused(
    length: int, sides: Sides, tmp_path: Path
) -> None:
    """Staging's name is longer than the target's; 240 characters fit, that does not."""
    sides.assert_refused(tmp_path / ("x" * length), TargetUnwritable)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inputs"]


def test_a_mount_point_is_refused_before_the_work(sides: Sides) -> None:
    mounted = next(
        (Path(p) for p in ("/proc", "/sys", "/dev") if os.path.ismount(p)),
        None,
    )
    if mounted is None:
        pytest.skip("no mount point to be found")
    assert "mount point" in sides.assert_refused(mounted, TargetUnwritable, overwrite=True)


@pytest.mark.parametrize(
    "delta, name",
    [
        ("lmsys/vicuna-7b-delta-v1.1", "vicuna-7b-v1.1"),
        ("lmsys/vicuna-7b-delta-v1.1@main", "vicuna-7b-v1.1"),
        ("tatsu-lab/alpaca-7b-wdiff", "alpaca-7b"),
        ("./weights/Some_Diff-7b/", "Some-7b"),
        ("x.delta", "x"),
        ("a-delta-b-delta", "a-b-delta"),
    ],
)
def test_the_target_is_named_after_the_delta(delta: str, name: str) -> None:
    assert target_name(delta) == Path(name)


@pytest.mark.parametrize(
    "delta", ["delta", "vicuna", "-delta", "x-deltas", "/", ".", "..", "diff-v1"]
)
def test_a_delta_that_says_nothing_of_the_target_needs_a_target(delta: str) -> None:
    with pytest.raises(NoTargetName):
        target_name(delta)

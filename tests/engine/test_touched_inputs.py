"""An input whose times of modification say nothing: its time of change tells, and its content."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.folders import contents, copied, hidden, staging
from tests.support.world import World, at_step, flip, place_in
from weightsmith import fs
from weightsmith.checkpoint.table import read_table
from weightsmith.engine import inputs
from weightsmith.engine.run import Outcome
from weightsmith.errors import InputChanged, StagingOfAnotherPlan
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.make_delta import MadeDelta, make_delta
from weightsmith.progress import SILENCE, Progress

BASE = "pytorch_model-00001-of-00002.bin"


class Heard:
    """A listener that keeps what is said."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def begin(self, phase: str, total_nbytes: int) -> None:
        """Nothing to keep."""

    def advance(self, nbytes: int) -> None:
        """Nothing to keep."""

    def note(self, text: str) -> None:
        self.notes.append(text)


class Making:
    """One of the two kinds of work, and what it must come to."""

    def __init__(self, world: World, verb: str) -> None:
        self.world, self.verb = world, verb
        if verb == "make":
            world.run()
        self.target = world.target.with_name("delta of it") if verb == "make" else world.target

    def run(self, progress: Progress = SILENCE) -> Outcome | MadeDelta:
        if self.verb == "apply":
            return self.world.run(progress)
        return make_delta(self.world.base, self.world.target, self.target, progress=progress)

    @property
    def input(self) -> Path:
        return self.world.base / BASE


@pytest.fixture(params=["apply", "make"])
def making(request: pytest.FixtureRequest, vectors: Path, tmp_path: Path) -> Making:
    return Making(World(vectors, tmp_path), request.param)


@pytest.fixture
def expected(making: Making, vectors: Path, tmp_path: Path) -> dict[str, bytes]:
    home = tmp_path / "undisturbed"
    home.mkdir()
    straight = Making(World(vectors, home), making.verb)
    straight.run()
    return contents(straight.target)


def new_mode(path: Path) -> None:
    path.chmod(0o600)


def new_link(path: Path) -> None:
    os.link(path, path.parent.with_name("a further name"))


def set_back(path: Path) -> None:
    """As who writes the same again and hides it."""
    flip(path, place_in(path))
    flip(path, place_in(path))


def written(path: Path) -> None:
    flip(path, place_in(path))


TOUCHES = (new_mode, new_link, set_back)


def stop() -> None:
    raise KeyboardInterrupt


def before_look(number: int, act: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Act just before a run looks at its inputs for the n-th time, having read much of them."""
    look, looks = inputs.require_unchanged, iter(range(1, 100))

    def act_and_look(*args: Any) -> None:
        if next(looks) == number:
            act()
        look(*args)

    monkeypatch.setattr("weightsmith.engine.output.require_unchanged", act_and_look)


# --- while a run is at work -----------------------------------------------------------------------


@pytest.mark.parametrize("touch", TOUCHES)
def test_a_run_reads_a_touched_input_again_and_goes_on(
    touch: Callable[[Path], None],
    making: Making,
    expected: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard = Heard()
    before_look(2, lambda: touch(making.input), monkeypatch)
    making.run(heard)
    assert contents(making.target) == expected
    said = [note for note in heard.notes if "reading it again" in note]
    assert said == [f"{BASE} changed in mode, owner or links: reading it again"]


@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_run_ends_where_an_input_was_written_to_and_its_time_set_back(
    number: int, making: Making
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        before_look(number, lambda: written(making.input), patch)
        with pytest.raises(InputChanged, match=BASE):
            making.run()
    assert not making.target.exists()
    written(making.input)  # back to what it was, which its time of change does not say
    making.run()
    assert hidden(making.target.parent) == []


@pytest.mark.parametrize("number", [1, 4])
def test_a_run_ends_where_a_header_was_written_to_and_its_time_set_back(
    number: int, making: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No tensor has other bytes, so what was made is still given: the plan is another one."""
    table, _ = read_table(fs.open_for_reading(making.input), [])
    name = table[0].info.name.encode()

    def rename() -> None:
        flip(making.input, making.input.read_bytes().index(name))

    before_look(number, rename, monkeypatch)
    with pytest.raises(InputChanged, match=BASE):
        making.run()
    assert not making.target.exists()


@pytest.fixture
def release(vectors: Path, tmp_path: Path) -> Path:
    """A base, and a release of whole files."""
    return copied(vectors / "oasst_xor", tmp_path / "vector")


def decoded_while(act: Callable[[], None], release: Path, patch: pytest.MonkeyPatch) -> Path:
    """Act once all is planned and nothing is read but the ends of files; what was made then."""
    patch.setattr(fs, "on_durable_step", at_step(1, act))
    return apply_delta(release / "base", release / "delta", target=release / "out").target


@pytest.mark.parametrize("side", ["base", "delta"])
def test_a_whole_file_that_was_written_to_before_it_was_read_ends_the_run(
    side: str, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = min((release / side).rglob("*.bin"))
    with pytest.raises(InputChanged, match=path.name):
        decoded_while(lambda: flip(path, 1000), release, monkeypatch)
    assert not (release / "out").exists()


@pytest.mark.parametrize("touch", TOUCHES)
def test_a_whole_file_that_was_touched_before_it_was_read_is_read(
    touch: Callable[[Path], None], release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = min((release / "base").rglob("*.bin"))
    made = decoded_while(lambda: touch(path), release, monkeypatch)
    expected = contents(release / "expected")
    assert {name: raw for name, raw in contents(made).items() if name in expected} == expected


# --- between two runs -----------------------------------------------------------------------------


@pytest.fixture
def stopped(making: Making) -> Making:
    """Work of which some is done."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fs, "on_durable_step", at_step(9 if making.verb == "apply" else 7, stop))
        with pytest.raises(KeyboardInterrupt):
            making.run()
    assert list((staging(making.target) / "receipts").glob("*.json"))
    return making


@pytest.mark.sampled(3)
@pytest.mark.parametrize("touch", TOUCHES)
def test_finished_work_is_kept_where_a_touched_input_still_gives_it(
    touch: Callable[[Path], None], stopped: Making, expected: dict[str, bytes]
) -> None:
    touch(stopped.input)
    assert stopped.run().kept
    assert contents(stopped.target) == expected


def test_finished_work_is_not_mixed_with_an_input_whose_time_was_set_back(
    stopped: Making,
) -> None:
    written(stopped.input)
    with pytest.raises(StagingOfAnotherPlan, match="an input changed since") as caught:
        stopped.run()
    assert caught.value.context == (f"base: {BASE}",)

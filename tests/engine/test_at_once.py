"""Two at work on one target, or in one's files, at the same time: one of them gives way."""

import errno
import fcntl
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.children import Children
from tests.support.folders import contents, hidden, staging
from tests.support.world import SHARDS, World, at_step, flip
from weightsmith import fs
from weightsmith.engine.run import Outcome
from weightsmith.engine.staging import Staging
from weightsmith.errors import SourceNotFound, StagingBusy, VerificationFailed, WeightsmithError
from weightsmith.ops.make_delta import make_delta


@pytest.fixture
def world(vectors: Path, tmp_path: Path) -> World:
    return World(vectors, tmp_path)


@pytest.fixture(scope="module")
def expected(
    vectors: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, bytes], int]:
    """Every file that a run makes by itself, and its durable steps."""
    world = World(vectors, tmp_path_factory.mktemp("alone"))
    steps: list[None] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fs, "on_durable_step", lambda: steps.append(None))
        world.run()
    return contents(world.target), len(steps)


# --- another program in staging -------------------------------------------------------------------


def remove(path: Path) -> None:
    path.unlink()


def replace_by_a_copy(path: Path) -> None:
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


def add_another(path: Path) -> None:
    path.with_name("zz.bin").write_bytes(b"theirs")


def add_a_link(path: Path) -> None:
    path.with_name("zz").symlink_to(path.parent)


def put_a_link_in_the_place_of_its_directory(path: Path) -> None:
    away = path.parents[2] / f"away {path.name}"
    path.parent.rename(away)
    path.parent.symlink_to(away)


HARMS = (
    *(remove, replace_by_a_copy, flip, add_another, add_a_link),
    put_a_link_in_the_place_of_its_directory,
)
NAMES = ("model-00001-of-00004.safetensors", "config.json", "model.safetensors.index.json")


@pytest.mark.sampled(7)
@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("verify", ["cache", "disk", "no"])
def test_what_is_not_as_it_was_synced_is_not_published(
    harm: Callable[[Path], None],
    verify: str,
    world: World,
    expected: tuple[dict[str, bytes], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files, steps = expected
    for name in NAMES[:1] if verify == "disk" else NAMES:
        # The last steps: the directory's sync, the sealing, the publishing and its sync.
        act = partial(harm, world.output / name)
        monkeypatch.setattr(fs, "on_durable_step", at_step(steps - 3, act))
        with pytest.raises(VerificationFailed) as caught:
            world.run(verify=verify, restart=True)
        assert caught.value.exit_code == 10
        assert not world.target.exists()
    monkeypatch.setattr(fs, "on_durable_step", lambda: None)
    world.run(verify=verify, restart=True)
    assert contents(world.target) == files


@pytest.mark.parametrize("name", ["config.json", "weightsmith.json"])
def test_what_changes_in_the_moment_in_which_it_gets_its_name_is_not_published(
    name: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = fs.rename

    def rename_and_append(old: Path, new: Path) -> None:
        rename(old, new)
        if new == world.output / name:
            with new.open("ab") as file:
                file.write(b" ")

    monkeypatch.setattr(fs, "rename", rename_and_append)
    with pytest.raises(VerificationFailed, match="another program changed it"):
        world.run()
    assert not world.target.exists()


@pytest.mark.parametrize("harm", HARMS)
def test_the_same_holds_for_a_delta(
    harm: Callable[[Path], None],
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world.run()
    made = tmp_path / "delta of it"
    output = staging(made) / "output"
    written = Staging.write

    def write_and_harm(self: Staging, name: str, content: Any, *, mode: int = 0o666) -> None:
        written(self, name, content, mode=mode)
        if name == "weightsmith.json":
            harm(next(output.glob("*.safetensors")))

    monkeypatch.setattr(Staging, "write", write_and_harm)
    with pytest.raises(VerificationFailed):
        make_delta(world.base, world.target, made)
    assert not made.exists()


def test_kept_files_are_held_against_what_they_were_when_they_were_kept(
    world: World, expected: tuple[dict[str, bytes], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        """In the middle of the work."""

    def stop() -> None:
        raise Stop

    files, steps = expected
    monkeypatch.setattr(fs, "on_durable_step", at_step(steps // 2, stop))
    with pytest.raises(Stop):
        world.run()
    kept = next((staging(world.target) / "receipts").glob("*.json")).name.removesuffix(".json")
    monkeypatch.setattr(fs, "on_durable_step", at_step(3, lambda: flip(world.output / kept)))
    with pytest.raises(VerificationFailed):
        world.run(verify="no")
    monkeypatch.setattr(fs, "on_durable_step", lambda: None)
    world.run(restart=True)
    assert contents(world.target) == files


def test_a_file_that_was_made_and_is_gone_is_not_told_as_a_missing_input(world: World) -> None:
    made = Staging(world.target)
    with pytest.raises(VerificationFailed, match="removed after it was written"), made.held():
        fs.open_for_reading(made.output / "model.safetensors")
    with pytest.raises(SourceNotFound), made.held():
        fs.open_for_reading(world.base / "model.safetensors.gone")


# --- another run of the same plan -----------------------------------------------------------------


def test_a_run_that_is_overtaken_between_its_look_and_its_lock_finds_all_done(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, outcomes = fcntl.flock, []

    def be_overtaken(lock: object, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        outcomes.append(world.run())
        flock(lock, how)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", be_overtaken)
    late = world.run()
    assert (outcomes[0].already_done, late.already_done) == (False, True)
    assert late.manifest == outcomes[0].manifest
    assert hidden(world.target.parent) == []


@pytest.mark.slow
@pytest.mark.parametrize("locks", ["none", "granted to everybody"])
def test_of_two_runs_on_a_file_system_without_locks_one_ends_well_and_the_other_gives_way(
    locks: str,
    vectors: Path,
    tmp_path: Path,
    expected: tuple[dict[str, bytes], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second one comes at each durable step of the first, and runs to its end meanwhile."""

    def no_locks(*_: object) -> None:
        if locks == "none":
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    files, steps = expected
    monkeypatch.setattr(fcntl, "flock", no_locks)
    ends = set[str]()
    for number in range(1, steps + 1):
        home = tmp_path / str(number)
        home.mkdir()
        world = World(vectors, home)
        quicker: list[Outcome] = []

        def overtake(world: World = world, quicker: list[Outcome] = quicker) -> None:
            monkeypatch.setattr(fs, "on_durable_step", lambda: None)
            quicker.append(world.run())

        monkeypatch.setattr(fs, "on_durable_step", at_step(number, overtake))
        try:
            ends.add("already done" if world.run().already_done else "done")
        except WeightsmithError as error:
            ends.add(f"{error.exit_code} {error.reference}")
        assert len(quicker) == 1
        assert contents(world.target) == files, number
        world.run()
        assert hidden(home) == [], number
    assert ends == {"9 staging-busy", "done"}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("step", [1, 2, 3, 6])
def test_what_another_run_begins_while_one_publishes_does_not_reach_what_is_published(
    step: int,
    overwrite: bool,
    world: World,
    expected: tuple[dict[str, bytes], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a file system that grants every lock: between the last look and the name."""

    class Stop(Exception):
        """The other run is killed after some steps."""

    def stop() -> None:
        raise Stop

    def look_and_be_joined(staging: Staging) -> None:
        look(staging)
        monkeypatch.setattr(Staging, "_require_as_synced", look)
        monkeypatch.setattr(fs, "on_durable_step", at_step(step, stop))
        with pytest.raises(Stop):
            world.run(overwrite=overwrite)
        monkeypatch.setattr(fs, "on_durable_step", lambda: None)

    if overwrite:
        world.target.mkdir()
        (world.target / "old.txt").write_text("old")
    before = contents(world.target) if overwrite else {}
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    look = Staging._require_as_synced
    monkeypatch.setattr(Staging, "_require_as_synced", look_and_be_joined)
    with pytest.raises(StagingBusy):
        world.run(overwrite=overwrite)
    assert (contents(world.target) if world.target.exists() else {}) == before
    world.run(overwrite=overwrite)
    assert contents(world.target) == expected[0]
    assert hidden(world.target.parent) == []


def test_what_was_sealed_and_not_named_is_kept_though_another_run_began_a_second_output(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(staging: Staging) -> None:
        staging.output.mkdir()
        (staging.output / "config.json").write_text("theirs")
        raise VerificationFailed(file=staging.output, reason="another program put it there")

    monkeypatch.setattr(Staging, "_require_as_synced", fail)
    with pytest.raises(VerificationFailed):
        world.run()
    monkeypatch.undo()
    kept = {each.name for each in world.output.glob("*.safetensors")}
    assert world.run().kept == len(kept) == 4
    assert hidden(world.target.parent) == []


@pytest.mark.parametrize("absent", [["fcntl"], []])
def test_a_run_by_itself_needs_no_locks(
    absent: list[str],
    world: World,
    children: Children,
    expected: tuple[dict[str, bytes], int],
) -> None:
    plan = {"max_shard_nbytes": SHARDS}
    answer = children.apply(world.base, world.delta, world.target, plan=plan, absent=absent)
    assert (answer.error, answer.unknown) == ("", "")
    assert contents(world.target) == expected[0]

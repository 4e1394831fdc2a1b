"""Killed at any durable step or write: nothing is half done, and the same command finishes."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.children import KILLED, Answer, Children
from tests.support.folders import contents, copied, hidden, inodes, old, staging, state

PLAN = {"max_shard_nbytes": 30_000}


class World:
    """Inputs, a target, what the target should hold, and a process to run in."""

    def __init__(self, vectors: Path, home: Path, children: Children, **request: Any) -> None:
        self.base, self.delta = (
            copied(vectors / "vicuna_v1_1" / side, home / side, tokenizer=False)
            for side in ("base", "delta")
        )
        self.target = home / "outputs" / "vicuna"
        self._children = children
        self._request = {"plan": PLAN, **request}
        self._inputs = state(self.base, self.delta)
        whole = self.apply(self.target)
        assert (whole.exit, whole.error, whole.unknown) == (0, "", "")
        self.steps, self.writes = whole.steps, whole.writes
        self.expected = contents(self.target)
        assert len([name for name in self.expected if name.endswith(".safetensors")]) >= 3
        shutil.rmtree(self.target.parent)

    def apply(self, target: Path | None = None, **request: Any) -> Answer:
        return self._children.apply(
            self.base, self.delta, target or self.target, **{**self._request, **request}
        )

    def check_inputs(self) -> None:
        assert state(self.base, self.delta) == self._inputs
        outputs = [*self.target.parent.glob(".*"), self.target]
        assert inodes([self.base, self.delta]).isdisjoint(inodes(outputs))

    def check_finished_by_the_same_command(self) -> Answer:
        again = self.apply()
        assert (again.exit, again.error, again.unknown) == (0, "", "")
        assert contents(self.target) == self.expected
        assert hidden(self.target.parent) == []
        self.check_inputs()
        shutil.rmtree(self.target.parent)
        return again


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_durable_step_the_target_is_absent_or_whole(
    every: int, vectors: Path, tmp_path: Path, children: Children
) -> None:
    world = World(vectors, tmp_path, children)
    kept = []
    for step in range(1 + (world.steps - 1) % every, world.steps + 1, every):  # the last too
        died = world.apply(die_at_step=step)
        assert died.exit == KILLED, step
        if world.target.exists():
            assert contents(world.target) == world.expected, step
        world.check_inputs()
        again = world.check_finished_by_the_same_command()
        kept.append(again.kept)
    shards = len([name for name in world.expected if name.endswith(".safetensors")])
    # Work is never lost once it is finished: the later the end, the more is kept.
    assert kept == sorted(kept)
    assert (kept[0], kept[-1]) == (0, shards)
    assert every > 1 or set(kept) == set(range(shards + 1))


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_after_any_write_nothing_is_published_and_nothing_is_lost(
    every: int, vectors: Path, tmp_path: Path, children: Children
) -> None:
    world = World(vectors, tmp_path, children, options={"verify": "no", "workers": 1})
    for write in range(1, world.writes + 1, every):
        died = world.apply(die_at_write=write)
        assert died.exit == KILLED, write
        assert not world.target.exists(), write
        world.check_finished_by_the_same_command()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("replaced", ["folder", "our own"])
@pytest.mark.parametrize("no_exchange", [False, True], ids=["exchange", "two renames"])
@pytest.mark.parametrize("last_steps", [3, pytest.param(99, marks=pytest.mark.slow)])
def test_killed_while_replacing_the_old_or_the_new_is_there_whole(
    replaced: str,
    no_exchange: bool,
    last_steps: int,
    vectors: Path,
    tmp_path: Path,
    children: Children,
) -> None:
    world = World(
        vectors,
        tmp_path,
        children,
        options={"overwrite": True},
        no_exchange=no_exchange,
    )
    predecessor = tmp_path / "predecessor"
    if replaced == "folder":
        (predecessor / "notes").mkdir(parents=True)
        (predecessor / "notes" / "mine.txt").write_text("not weightsmith's")
        (predecessor / "model-00001-of-00005.safetensors").write_text("of the same name")
    else:
        made = world.apply(predecessor, plan={**PLAN, "dtype": "float32"})
        assert made.kept == 0
    before = contents(predecessor)

    # What came before the last steps and harmed the predecessor would show in them too.
    first = max(world.steps - last_steps, 1)
    for step in range(first, world.steps + 2):  # making way without exchange is a step more
        world.target.parent.mkdir()
        shutil.copytree(predecessor, world.target)
        died = world.apply(die_at_step=step)
        if died.exit != KILLED:
            assert step > world.steps
            shutil.rmtree(world.target.parent)
            continue
        if world.target.exists():
            assert contents(world.target) in (before, world.expected), step
        else:
            assert contents(old(world.target)) == before, step
        world.check_inputs()
        world.check_finished_by_the_same_command()


@pytest.mark.parametrize("no_exchange", [False, True], ids=["exchange", "two renames"])
def test_the_old_target_is_put_back_when_the_wish_to_replace_it_is_gone(
    no_exchange: bool, vectors: Path, tmp_path: Path, children: Children
) -> None:
    world = World(vectors, tmp_path, children, no_exchange=no_exchange)
    for step in range(world.steps - 2, world.steps + 1):
        world.target.mkdir(parents=True)
        (world.target / "mine.txt").write_text("not weightsmith's")
        died = world.apply(die_at_step=step, options={"overwrite": True})
        assert died.exit == KILLED
        again = world.apply()
        if again.error:
            assert again.error == "target-exists"
            assert contents(world.target) == {"mine.txt": b"not weightsmith's"}
        else:
            assert again.already_done
            assert contents(world.target) == world.expected
            assert hidden(world.target.parent) == []
        shutil.rmtree(world.target.parent)


def test_a_replaced_target_in_staging_is_never_taken_for_unfinished_work(
    vectors: Path, tmp_path: Path, children: Children
) -> None:
    """Killed right after the exchange, staging holds the old target, which must not come back."""
    world = World(vectors, tmp_path, children, options={"overwrite": True})
    world.target.mkdir(parents=True)
    (world.target / "mine.txt").write_text("not weightsmith's")
    died = world.apply(die_at_step=world.steps - 1)
    assert died.exit == KILLED
    assert contents(staging(world.target) / "sealed") == {"mine.txt": b"not weightsmith's"}
    shard = next(world.target.glob("model-00001-of-*.safetensors"))
    shard.write_bytes(b"damaged" + shard.read_bytes()[7:])
    world.check_finished_by_the_same_command()


def test_after_a_failed_sync_no_receipt_vouches_for_the_shard(
    vectors: Path, tmp_path: Path, children: Children
) -> None:
    """A failed fsync may have lost what is still in the page cache: the shard is made again."""
    world = World(vectors, tmp_path, children)
    shards = sorted(name for name in world.expected if name.endswith(".safetensors"))
    before_shards, a_shard = 2, 2  # the plan and its directory; a shard and its receipt
    for number in range(1, before_shards + a_shard * len(shards) + 2):
        failed = world.apply(fail_sync=number)
        assert (failed.error, failed.exit_code) == ("target-unwritable", 9)
        assert not world.target.exists()
        done = max(number - before_shards - 1, 0) // a_shard
        receipts = (staging(world.target) / "receipts").glob("*.json")
        assert sorted(path.stem for path in receipts) == shards[:done]
        again = world.check_finished_by_the_same_command()
        assert again.kept == done

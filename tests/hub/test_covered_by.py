"""A cached model goes when a delta that stays rebuilds all its files, and what it needs is kept."""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.utils import WeakFileLock

from tests.support.delta_models import trained, weights, write_pair
from tests.support.folders import contents, write_model
from tests.support.hub.cache_maker import DAY, Maker
from weightsmith import fs
from weightsmith.errors import (
    CacheBusy,
    CacheChanged,
    DamagedInput,
    DeltaInvalid,
    DeltaNotExact,
    InputChanged,
    NoBase,
    NotInCache,
    SourceNotFound,
    TargetUnwritable,
    WrongBase,
)
from weightsmith.hub import pins
from weightsmith.hub.pins import FOLDER
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.cache_rows import Row
from weightsmith.ops.clean_cache import CleanPlan, carry_out, choose
from weightsmith.ops.make_delta import make_delta

BASE, TUNED, DELTA = "org/base", "org/tuned", "me/tuned-delta"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``base`` and ``target``, which has sidecars and an index."""
    folder = tmp_path_factory.mktemp("pair")
    write_pair(folder)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, pair: Path) -> "Registry":
    """What each test has a copy of."""
    home = tmp_path_factory.mktemp("made")
    (home / "hub").mkdir()
    maker = Maker(home / "hub")
    files = contents(pair / "target")
    base = f"{BASE}@{maker.revision(BASE, contents(pair / 'base'), ref='main', used=9)}"
    tuned = f"{TUNED}@{maker.revision(TUNED, files, ref='main', used=9)}"
    made = Registry(home, files, base, tuned)
    made.delta.parent.mkdir()
    make_delta(made.folder(base), pair / "target", made.delta, base_id=base)
    return made


class Registry:
    """A cache with a base and a fine-tune of it, and the delta between them."""

    def __init__(self, home: Path, files: dict[str, bytes], base_id: str, tuned_id: str) -> None:
        self.home = home
        self.maker = Maker(home / "hub")
        self.files = files
        self.base_id, self.tuned_id = base_id, tuned_id
        self.delta = home / "deltas" / "tuned"

    @property
    def root(self) -> Path:
        return self.maker.root

    def folder(self, name: str) -> Path:
        """The snapshot of ``org/name@commit``."""
        repo_id, _, commit = name.partition("@")
        return self.repo(repo_id) / "snapshots" / commit

    def repo(self, repo_id: str) -> Path:
        return self.root / f"models--{repo_id.replace('/', '--')}"

    def plan(self, *sources: str, **options: Any) -> CleanPlan:
        return self.maker.plan(*sources, covered_by=[str(self.delta)], **options)

    def clean(self) -> int:
        return self.maker.clean(covered_by=[str(self.delta)])

    def pins(self) -> list[Path]:
        return sorted(self.root.glob(f"models--*/{FOLDER}/*"))

    def rebuilt(self, delta: Path | None = None) -> dict[str, bytes]:
        """What comes of the base that is left in the cache, and the delta."""
        made = self.home / "rebuilt"
        apply_delta(self.folder(self.base_id), delta or self.delta, target=made)
        found = contents(made)
        shutil.rmtree(made)
        return found

    def cached_delta(self) -> str:
        """The delta in the cache, in place of the one in a directory."""
        commit = self.maker.revision(DELTA, contents(self.delta), ref="main")
        shutil.rmtree(self.delta)
        return f"{DELTA}@{commit}"


@pytest.fixture
def registry(made: Registry, tmp_path: Path) -> Registry:
    shutil.copytree(made.home, tmp_path / "home", symlinks=True)
    return Registry(tmp_path / "home", made.files, made.base_id, made.tuned_id)


def row_of(plan: CleanPlan, repo: str) -> Row:
    (row,) = [row for row in plan.rows if row.repo == repo]
    return row


class TestWhatGoes:
    def test_a_model_that_the_delta_rebuilds_goes_and_comes_back_byte_for_byte(
        self, registry: Registry
    ) -> None:
        plan = registry.plan()
        (row,) = plan.removed
        assert (row.repo, plan.freed_nbytes) == (TUNED, sum(map(len, registry.files.values())))
        assert row.reason == f"rebuilt by {registry.delta}"
        assert registry.clean() == plan.freed_nbytes
        assert registry.maker.left() == {registry.base_id}
        assert registry.files.items() <= registry.rebuilt().items()

    def test_base_and_delta_are_kept_by_every_later_run_which_says_why(
        self, registry: Registry
    ) -> None:
        delta = registry.cached_delta()
        assert registry.maker.clean(covered_by=[DELTA]) > 0
        why = f"kept: {registry.tuned_id[:22]} is rebuilt from it"
        for options in ({}, {"older_than_s": DAY / 2}, {"max_nbytes": 1}, {"keep_last": 1}):
            plan = registry.maker.plan(**options)
            assert {row.reason for row in plan.rows if row.kind == "revision"} == {why}
            assert plan.removed == choose(plan, [row.id for row in plan.rows]).removed == ()
        assert registry.maker.plan(BASE, DELTA).removed == ()
        assert registry.maker.left() == {registry.base_id, delta}

    def test_a_delta_of_the_cache_may_be_named_by_its_snapshots_folder(
        self, registry: Registry
    ) -> None:
        delta = registry.cached_delta()
        registry.maker.clean(covered_by=[str(registry.folder(delta))])
        assert {path.parent.parent for path in registry.pins()} == {
            registry.repo(DELTA),
            registry.repo(BASE),
        }
        assert registry.maker.plan(DELTA).removed == ()

    def test_other_selectors_narrow_it(self, registry: Registry) -> None:
        assert registry.plan(older_than_s=30 * DAY).removed == ()
        assert registry.plan(BASE).removed == ()
        assert row_of(registry.plan(keep=["org/*"]), TUNED).reason == "kept: `keep=org/*`"
        assert row_of(registry.plan(max_nbytes=10**9), TUNED).reason == "fits into 1.00 GB"
        assert [row.repo for row in registry.plan(TUNED, max_nbytes=1).removed] == [TUNED]

    def test_bytes_that_another_revision_shares_are_not_counted_as_freed(
        self, registry: Registry
    ) -> None:
        other = {**registry.files, "README.md": b"another card"}
        commit = registry.maker.revision(TUNED, other, used=9)
        plan = registry.plan()
        assert [row.repo for row in plan.removed] == [TUNED]
        assert registry.clean() == len(registry.files["README.md"])
        assert registry.maker.left() == {registry.base_id, f"{TUNED}@{commit}"}

    def test_a_part_of_a_model_goes_as_the_whole_does(self, registry: Registry) -> None:
        for name in ("config.json", "model-00001-of-00002.safetensors"):
            (registry.folder(registry.tuned_id) / name).unlink()
        gone = {row.kind for row in registry.plan().removed if row.repo == TUNED}
        assert gone == {"revision", "unreferenced"}
        assert registry.clean() == sum(map(len, registry.files.values()))

    def test_hidden_files_which_no_delta_holds_stay_where_they_are(
        self, registry: Registry
    ) -> None:
        registry.maker.revision("org/other", {**registry.files, ".gitattributes": b"*.bin"})
        shutil.rmtree(registry.repo(TUNED))
        plan = registry.plan()
        assert plan.freed_nbytes == sum(map(len, registry.files.values()))
        registry.clean()
        (left,) = registry.repo("org/other").glob("snapshots/*/*")
        assert left.read_bytes() == b"*.bin"
        assert "rebuilt from it" in row_of(registry.maker.plan(), BASE).reason

    def test_several_deltas_and_a_directory_of_them(self, registry: Registry, pair: Path) -> None:
        tensors = {"w": weights(300, 20), "v": weights(40, seed=3)}
        base = write_model(registry.home / "other-base", tensors)
        commit = registry.maker.revision("org/other-base", contents(base))
        for number in range(2):
            changed = {name: trained(each, seed=number) for name, each in tensors.items()}
            tuned = write_model(registry.home / f"tuned-{number}", changed)
            delta = registry.home / "deltas" / f"tuned-{number}"
            make_delta(base, tuned, delta, base_id=f"org/other-base@{commit}")
            registry.maker.revision(f"org/tuned-{number}", contents(tuned))
        one = str(registry.delta.parent / "tuned-0")
        plan = registry.maker.plan(covered_by=[str(registry.delta), one])
        assert {row.repo for row in plan.removed} == {TUNED, "org/tuned-0"}
        registry.maker.clean(covered_by=[str(registry.delta.parent)])
        assert {name.partition("@")[0] for name in registry.maker.left()} == {
            BASE,
            "org/other-base",
        }
        why = row_of(registry.maker.plan(), "org/other-base").reason
        assert why.startswith("kept: org/tuned-0@")
        assert why.endswith(" and 1 other model are rebuilt from it")


class TestWhatStays:
    def test_a_model_with_a_file_that_is_not_covered_and_each_is_named(
        self, registry: Registry
    ) -> None:
        files = {**registry.files, "README.md": b"mine", "pytorch_model.bin": b"p", "x.onnx": b"x"}
        registry.maker.revision("org/like", files)
        like = row_of(
            dataclasses.replace(
                plan := registry.plan(),
                rows=tuple(row for row in plan.rows if row.kind == "revision"),
            ),
            "org/like",
        )
        assert not like.remove
        assert {each.file: each.why for each in like.uncovered} == {
            "README.md": "the delta makes other bytes",
            "pytorch_model.bin": "the delta does not hold it",
            "x.onnx": "the delta does not hold it",
        }
        assert like.reason == f"{registry.delta} does not rebuild 3 files of it"
        assert like.to_document()["uncovered"][0]["file"] == "README.md"

    def test_a_cached_file_that_is_not_what_its_name_says(self, registry: Registry) -> None:
        """The bytes are compared, not the names: nobody knows what they are worth to somebody."""
        path = registry.folder(registry.tuned_id) / "model-00002-of-00002.safetensors"
        raw = bytearray(path.read_bytes())
        raw[-1] ^= 1
        path.resolve().write_bytes(raw)
        row = row_of(registry.plan(), TUNED)
        assert [each.file for each in row.uncovered] == [path.name]
        path.resolve().write_bytes(raw + b"more")
        assert [each.file for each in row_of(registry.plan(), TUNED).uncovered] == [path.name]

    def test_the_base_itself_however_it_is_chosen(self, registry: Registry, pair: Path) -> None:
        delta = registry.home / "deltas" / "nothing"
        make_delta(
            registry.folder(registry.base_id), pair / "base", delta, base_id=registry.base_id
        )
        plan = registry.maker.plan(BASE, covered_by=[str(delta)])
        assert plan.removed == ()
        assert row_of(plan, BASE).reason == "no delta that was named rebuilds it"

    def test_two_models_that_could_be_rebuilt_from_each_other(
        self, registry: Registry, pair: Path
    ) -> None:
        back = registry.home / "deltas" / "back"
        make_delta(pair / "target", pair / "base", back, base_id=registry.tuned_id)
        for first, second in ((registry.delta, back), (back, registry.delta)):
            plan = registry.maker.plan(covered_by=[str(first), str(second)])
            assert len(plan.removed) == 1
            assert f"{second} is not used" in plan.notes[0]
        registry.clean()
        with pytest.raises(NotInCache):
            registry.maker.plan(covered_by=[str(back)])
        (row,) = registry.maker.plan(BASE).rows
        assert row.reason.startswith("kept: ")

    def test_looking_does_not_count_as_use(self, registry: Registry) -> None:
        blobs = [*registry.repo(TUNED).glob("blobs/*")]
        before = [path.stat().st_atime_ns for path in blobs]
        registry.plan()
        assert [path.stat().st_atime_ns for path in blobs] == before

    def test_what_no_delta_names(self, registry: Registry) -> None:
        registry.maker.revision("org/a", {"model.safetensors": b"x"}, used=9)
        plan = registry.plan()
        assert row_of(plan, "org/a").reason == "no delta that was named rebuilds it"
        registry.maker.leftover("org/a", f"{'0' * 64}.incomplete", 30)
        assert not any(row.leftovers for row in registry.plan().removed)


class TestBadInput:
    def test_a_base_that_is_not_in_the_cache_is_named_with_the_way_to_get_it(
        self, registry: Registry
    ) -> None:
        shutil.rmtree(registry.repo(BASE))
        with pytest.raises(NotInCache) as error:
            registry.plan()
        assert error.value.hint_text == f"weightsmith download {registry.base_id}"

    def test_a_delta_that_is_none_or_does_not_say_its_base(
        self, registry: Registry, pair: Path
    ) -> None:
        with pytest.raises(SourceNotFound):
            registry.maker.plan(covered_by=["./nowhere"])
        with pytest.raises(NotInCache):
            registry.maker.plan(covered_by=["me/nowhere"])
        with pytest.raises(DeltaNotExact):
            registry.maker.plan(covered_by=[str(pair / "target")])
        make_delta(pair / "base", pair / "target", registry.home / "anonymous")
        with pytest.raises(NoBase):
            registry.maker.plan(covered_by=[str(registry.home / "anonymous")])

    def test_a_damaged_delta_or_base_and_nothing_goes(self, registry: Registry) -> None:
        before = registry.maker.left()
        damage(next(registry.delta.glob("*.safetensors")))
        with pytest.raises((DeltaInvalid, DamagedInput)):
            registry.plan()
        assert registry.maker.left() == before

    def test_a_damaged_base(self, registry: Registry) -> None:
        damage((registry.folder(registry.base_id) / "model-00001-of-00002.safetensors").resolve())
        with pytest.raises(WrongBase):
            registry.plan()

    def test_a_delta_of_torch_files_covers_nothing_and_says_so(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        _, target = write_pair(tmp_path / "bin", suffix="bin")
        commit = registry.maker.revision("org/bin", contents(target))
        delta = registry.home / "deltas" / "bin"
        make_delta(registry.folder(registry.base_id), target, delta, base_id=registry.base_id)
        plan = registry.maker.plan(f"org/bin@{commit}", covered_by=[str(delta)])
        assert plan.removed == ()
        assert plan.notes == (f"{delta} restores tensors, but not the files as they were",)

    def test_what_changed_after_the_question_is_not_taken(self, registry: Registry) -> None:
        for path in (
            next(registry.delta.glob("*.safetensors")),
            registry.delta / "weightsmith.json",
            (registry.folder(registry.tuned_id) / "config.json").resolve(),
            (registry.folder(registry.base_id) / "model-00001-of-00002.safetensors").resolve(),
        ):
            plan = registry.plan()
            assert plan.removed
            os.utime(path)
            with pytest.raises(InputChanged):
                carry_out(plan)
            assert registry.pins() == []
        assert len(registry.maker.left()) == 2


def damage(path: Path) -> None:
    """Another byte in the middle of the largest thing in a file."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) * 3 // 4] ^= 1
    path.write_bytes(raw)


class TestStopped:
    """Whatever stops it: the model is whole, or a pin that is durable says what rebuilds it."""

    def assert_nothing_lost(self, registry: Registry) -> None:
        there = registry.folder(registry.tuned_id)
        whole = there.is_dir() and contents(there) == registry.files
        if not whole:
            assert row_of(registry.maker.plan(), BASE).pinned
            assert registry.maker.plan(BASE).removed == ()
        assert registry.files.items() <= registry.rebuilt().items()

    @pytest.fixture
    def fresh(self, registry: Registry) -> Callable[[], None]:
        """Puts the cache back as it was."""
        before = registry.root.rename(registry.home / "before")

        def restore() -> None:
            shutil.rmtree(registry.root, ignore_errors=True)
            shutil.copytree(before, registry.root, symlinks=True)

        restore()
        return restore

    def test_killed_at_any_durable_step(
        self, registry: Registry, fresh: Callable[[], None]
    ) -> None:
        statuses = []
        for step in range(1, 20):
            fresh()
            plan = registry.plan()
            statuses.append(in_child(partial(die_at_step, step), plan))
            self.assert_nothing_lost(registry)
            carry_out(registry.plan())
            assert registry.maker.left() == {registry.base_id}
            if statuses[-1] == 0:
                break
        assert statuses == [9, 9, 9, 9, 0]

    @pytest.mark.slow
    def test_killed_at_any_deletion(self, registry: Registry, fresh: Callable[[], None]) -> None:
        for number in range(1, 60):
            fresh()
            plan = registry.plan()
            status = in_child(partial(die_at_deletion, number), plan)
            self.assert_nothing_lost(registry)
            carry_out(registry.plan())
            carry_out(registry.maker.plan())
            assert registry.maker.left() == {registry.base_id}, number
            if status == 0:
                break
        assert 10 < number < 59

    def test_pins_are_durable_before_anything_is_deleted(
        self, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plan = registry.plan()
        seen: list[str] = []
        monkeypatch.setattr(fs, "on_durable_step", lambda: seen.append("durable"))
        delete = pins_seen_by(registry, seen)
        monkeypatch.setattr("weightsmith.ops.clean_cache.delete", delete)
        with pytest.raises(TargetUnwritable):
            carry_out(plan)
        assert seen == [*["durable"] * 4, "delete with 1 pin"]


def pins_seen_by(registry: Registry, seen: list[str]) -> Callable[..., None]:
    def delete(*_: Any) -> None:
        seen.append(f"delete with {len(registry.pins())} pin")

    return delete


def in_child(prepare: Callable[[], None], plan: CleanPlan) -> int:
    """Carry a plan out in a process that `prepare` makes mortal; its status."""
    pid = os.fork()
    if pid == 0:
        prepare()
        carry_out(plan)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die_at_step(number: int) -> None:
    left = iter(range(number - 1, -1, -1))

    def step() -> None:
        if next(left) == 0:
            os._exit(9)

    fs.on_durable_step = step


def die_at_deletion(number: int) -> None:
    left = iter(range(number - 1, -1, -1))
    for name in ("unlink", "remove", "rmdir"):
        delete = getattr(os, name)

        def count(*args: Any, delete: Any = delete, **options: Any) -> None:
            if next(left) == 0:
                os._exit(9)
            delete(*args, **options)

        setattr(os, name, count)


class TestPins:
    @pytest.fixture
    def cleaned(self, registry: Registry) -> Registry:
        registry.clean()
        return registry

    def test_a_pin_says_what_was_removed_and_what_rebuilds_it(self, cleaned: Registry) -> None:
        (pin,) = cleaned.pins()
        document = json.loads(pin.read_bytes())
        assert document["schema"] == "weightsmith.pin/1"
        assert document["model"] == cleaned.tuned_id
        assert document["base"] == [cleaned.base_id]
        assert document["delta"] == {"path": str(cleaned.delta)}
        assert document["files"] == {name: len(raw) for name, raw in cleaned.files.items()}
        assert pin.stat().st_size < 2000

    def test_a_model_that_is_in_the_cache_again_leans_on_nothing(self, cleaned: Registry) -> None:
        cleaned.maker.revision(TUNED, cleaned.files)
        assert [row.repo for row in cleaned.maker.plan(BASE).removed] == [BASE]

    def test_its_pin_is_told_and_goes_with_the_next_deletion(self, cleaned: Registry) -> None:
        cleaned.maker.revision(TUNED, cleaned.files)
        (note,) = cleaned.maker.plan().notes
        assert "is in the cache with all its files: its pin keeps nothing" in note
        carry_out(cleaned.maker.plan(TUNED))
        assert cleaned.pins() == []
        assert not (cleaned.repo(BASE) / FOLDER).exists()
        assert cleaned.maker.plan(BASE).notes == ()
        assert [row.repo for row in cleaned.maker.plan(BASE).removed] == [BASE]

    def test_a_pin_that_is_written_anew_stays(self, cleaned: Registry) -> None:
        cleaned.maker.revision(TUNED, cleaned.files)
        cleaned.clean()
        assert len(cleaned.pins()) == 1
        assert row_of(cleaned.maker.plan(), BASE).pinned

    def test_one_that_is_only_partly_there_still_leans(self, cleaned: Registry) -> None:
        cleaned.maker.revision(TUNED, cleaned.files)
        (cleaned.folder(cleaned.tuned_id) / "config.json").unlink()
        assert cleaned.maker.plan(BASE).removed == ()

    def test_a_deleted_pin_lets_go(self, cleaned: Registry) -> None:
        cleaned.pins()[0].unlink()
        assert [row.repo for row in cleaned.maker.plan(BASE).removed] == [BASE]

    def test_what_is_gone_is_said_with_the_way_back(self, cleaned: Registry) -> None:
        cleaned.delta.rename(cleaned.home / "elsewhere")
        (note,) = cleaned.maker.plan().notes
        assert note == f"{cleaned.tuned_id[:22]} is rebuilt by {cleaned.delta}, which is gone"
        assert row_of(cleaned.maker.plan(BASE), BASE).pinned
        cleaned.maker.revision(BASE, {"config.json": b"another commit"})
        shutil.rmtree(cleaned.folder(cleaned.base_id))
        (cleaned.repo(BASE) / "refs" / "main").unlink()
        notes = cleaned.maker.plan().notes
        assert f"weightsmith download {cleaned.base_id}" in notes[0]

    def test_what_is_left_of_a_base_that_something_else_deleted_is_kept(
        self, cleaned: Registry
    ) -> None:
        shutil.rmtree(cleaned.repo(BASE) / "snapshots")
        plan = cleaned.maker.plan()
        assert plan.removed == ()
        assert row_of(plan, BASE).reason.endswith("is rebuilt from it")

    @pytest.mark.parametrize(
        "raw",
        [
            *(b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe", b'{"schema": "weightsmith.pin/9"}'),
            b'{"a":' * 100_000,
            b"x" * 1_000_001,
        ],
        ids=lambda raw: repr(raw[:12]),
    )
    def test_one_that_cannot_be_read_keeps_all_of_its_repository_and_nothing_else(
        self, cleaned: Registry, raw: bytes
    ) -> None:
        cleaned.maker.revision("org/a", {"model.safetensors": b"x"})
        cleaned.pins()[0].write_bytes(raw)
        plan = cleaned.maker.plan("org/a", BASE)
        assert [row.repo for row in plan.removed] == ["org/a"]
        assert "cannot be read" in row_of(plan, BASE).reason
        assert str(cleaned.pins()[0]) in plan.notes[0]

    @pytest.mark.parametrize(
        "change",
        [
            {"model": "x"},
            {"model": 7},
            {"model": "org/a@\x1b[2J"},
            {"base": "org/base"},
            {"base": [["org/base"]]},
            {"delta": {}},
            {"delta": None},
            {"delta": {"path": "/a\x1b[2J"}},
            {"delta": {"path": 7}},
            {"files": {}},
            {"files": {"a": True}},
            {"files": ["a"]},
        ],
        ids=repr,
    )
    def test_one_that_lies_about_its_kind_is_none(
        self, cleaned: Registry, change: dict[str, Any]
    ) -> None:
        (path,) = cleaned.pins()
        path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}))
        plan = cleaned.maker.plan(BASE)
        assert plan.removed == ()
        assert all(note.isprintable() for note in plan.notes)
        assert "cannot be read" in row_of(plan, BASE).reason

    def test_one_keeps_nothing_of_other_repositories(self, cleaned: Registry) -> None:
        other = cleaned.maker.revision("org/a", {"model.safetensors": b"x"})
        (path,) = cleaned.pins()
        document = json.loads(path.read_bytes())
        document["base"] += [f"org/a@{other}", "../../etc@x"]
        path.write_text(json.dumps(document))
        assert [row.repo for row in cleaned.maker.plan("org/a").removed] == ["org/a"]

    def test_a_device_a_link_and_a_folder_in_place_of_one(self, cleaned: Registry) -> None:
        folder = cleaned.pins()[0].parent
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "a.json").symlink_to("/dev/zero")
        (folder / "b.json").mkdir()
        os.mkfifo(folder / "c.json")
        (folder / "d.json").symlink_to("nowhere")
        plan = cleaned.maker.plan(BASE)
        assert len(plan.notes) == 4
        assert plan.removed == ()

    def test_none_is_written_through_a_link(self, registry: Registry) -> None:
        elsewhere = registry.home / "elsewhere"
        elsewhere.mkdir()
        (registry.repo(BASE) / FOLDER).symlink_to(elsewhere)
        with pytest.raises(TargetUnwritable):
            carry_out(registry.plan())
        assert [*elsewhere.iterdir()] == []
        assert len(registry.maker.left()) == 2

    def test_a_base_that_was_pinned_after_the_question_stays(self, registry: Registry) -> None:
        plan = registry.maker.plan(BASE)
        assert plan.removed
        registry.clean()
        with pytest.raises(CacheChanged) as error:
            carry_out(plan)
        assert "is rebuilt from it" in str(error.value)
        assert registry.maker.left() == {registry.base_id}

    def test_one_run_at_a_time_deletes(
        self, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pins, "_WAIT_S", 0.01)
        plan = registry.plan()
        lock = registry.root / ".locks" / "weightsmith-clean-cache.lock"
        lock.parent.mkdir()
        with WeakFileLock(lock), pytest.raises(CacheBusy):
            carry_out(plan)
        assert len(registry.maker.left()) == 2

    def test_a_delta_on_a_delta_keeps_all_its_links(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        first = registry.cached_delta()
        tensors = {"w": weights(30, 20)}
        target = write_model(tmp_path / "far", tensors)
        second = tmp_path / "second"
        commit = registry.maker.revision("org/far", contents(target))
        make_delta(
            f"{registry.folder(registry.base_id)}+{registry.folder(first)}",
            target,
            second,
            base_id=registry.base_id,
        )
        record = json.loads((second / "weightsmith.json").read_bytes())
        record["delta"]["base"]["id"] = f"{first} on {registry.base_id}"
        (second / "weightsmith.json").write_text(json.dumps(record))
        registry.maker.clean(covered_by=[str(second)])
        assert f"org/far@{commit}" not in registry.maker.left()
        assert {path.parent.parent.name for path in registry.pins()} == {
            "models--me--tuned-delta",
            "models--org--base",
        }


def test_the_hub_librarys_own_tools_see_nothing_amiss(registry: Registry) -> None:
    registry.clean()
    assert registry.pins()
    registry.maker.assert_sound()
    assert hashlib.sha256(registry.rebuilt()["README.md"]).digest()

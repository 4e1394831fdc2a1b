"""What cleaning the cache takes, what it leaves, and that nothing in use is ever gone."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import scan_cache_dir
from huggingface_hub.utils import WeakFileLock

from tests.support.hub.cache_maker import DAY, Maker
from weightsmith.errors import LastUsedUnknown, NotInCache, SourceIsDirectory, TargetUnwritable
from weightsmith.hub.cache import _leftovers
from weightsmith.ops.clean_cache import CleanPlan, carry_out, choose, plan_clean_cache


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[Maker]:
    (tmp_path / "hub").mkdir()
    maker = Maker(tmp_path / "hub")
    yield maker
    maker.assert_sound()


def reasons(plan: CleanPlan) -> dict[str, str]:
    return {row.id: row.reason for row in plan.rows}


def removed(plan: CleanPlan) -> list[str]:
    return [row.id for row in plan.removed]


class TestWithoutASelector:
    def test_only_incomplete_downloads_and_unreferenced_blobs_go(self, maker: Maker) -> None:
        commit = maker.revision("org/old", {"model.safetensors": maker.raw(5000)}, used=400)
        digest = hashlib.sha256(b"x").hexdigest()
        maker.leftover("org/old", f"{digest}.incomplete", 300)
        maker.leftover("org/old", f"{digest}.0a1b2c3d.incomplete", 200)
        maker.leftover("org/old", digest, 70)
        assert removed(maker.plan()) == ["org/old:incomplete", "org/old:unreferenced"]
        assert maker.clean() == 570
        assert maker.left() == {f"org/old@{commit}"}
        assert maker.clean() == 0

    def test_a_download_that_is_running_keeps_its_partial_file(self, maker: Maker) -> None:
        maker.revision("org/old", {"model.safetensors": maker.raw(500)})
        digest = hashlib.sha256(b"x").hexdigest()
        partial = maker.leftover("org/old", f"{digest}.incomplete", 300)
        lock = maker.root / ".locks" / "models--org--old" / f"{digest}.lock"
        lock.parent.mkdir(parents=True)
        with WeakFileLock(lock):
            plan = maker.plan("org/old")
            assert removed(plan) == []
            assert set(reasons(plan).values()) == {"kept: being downloaded"}
            assert maker.clean("org/old") == 0
            assert partial.exists()
        assert maker.clean() == 300

    def test_a_blob_that_is_about_to_be_linked_is_not_taken(self, maker: Maker) -> None:
        maker.revision("org/old", {"model.safetensors": maker.raw(500)})
        maker.leftover("org/old", hashlib.sha256(b"x").hexdigest(), 300, days=0)
        assert maker.clean() == 0

    def test_a_download_that_ends_while_the_cache_is_looked_at_is_no_fault(
        self, maker: Maker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        maker.revision("org/old", {"model.safetensors": maker.raw(500)})
        partial = maker.leftover("org/old", f"{'0' * 64}.incomplete", 300)
        seen = scan_cache_dir(maker.root)
        stat = Path.stat

        def stat_and_end(path: Path, **how: Any) -> os.stat_result:
            state = stat(path, **how)
            if path == partial:
                path.rename(path.with_suffix(""))
            return state

        monkeypatch.setattr(Path, "stat", stat_and_end)
        assert [leftover.nbytes for leftover in _leftovers(maker.root, seen)] == [300]

    def test_an_empty_or_absent_cache_is_no_fault(self, maker: Maker, tmp_path: Path) -> None:
        assert maker.plan().rows == ()
        assert plan_clean_cache(cache=tmp_path / "nowhere").rows == ()
        assert carry_out(plan_clean_cache(cache=tmp_path / "nowhere")).freed_nbytes == 0

    def test_what_is_no_repository_is_said_and_left_alone(self, tmp_path: Path) -> None:
        maker = Maker(tmp_path / "hub")
        maker.revision("org/model", {"model.safetensors": maker.raw(500)})
        (maker.root / "notes").mkdir()
        plan = maker.plan()
        assert removed(plan) == []
        assert "notes" in plan.cache.unreadable[0]


def lose_a_blob(repo: Path) -> None:
    next((repo / "blobs").iterdir()).unlink()


def name_no_revision(repo: Path) -> None:
    (repo / "refs" / "main").write_text("0" * 40)


def put_a_file_among_snapshots(repo: Path) -> None:
    (repo / "snapshots" / "x").touch()


def put_a_file_for_the_names(repo: Path) -> None:
    shutil.rmtree(repo / "refs")
    (repo / "refs").touch()


def lose_snapshots(repo: Path) -> None:
    shutil.rmtree(repo / "snapshots")


def lose_what_is_in_snapshots(repo: Path) -> None:
    for each in (repo / "snapshots").iterdir():
        shutil.rmtree(each)


def lose_snapshots_and_names(repo: Path) -> None:
    for name in ("snapshots", "refs"):
        shutil.rmtree(repo / name)


BREAKS = (lose_a_blob, name_no_revision, put_a_file_among_snapshots, put_a_file_for_the_names)
LEAVES = (lose_snapshots, lose_what_is_in_snapshots, lose_snapshots_and_names)


class TestBroken:
    """Repositories that the library's own scan gives up on."""

    @pytest.fixture
    def maker(self, tmp_path: Path) -> Maker:
        """One that does not mind what it finds at the end."""
        (tmp_path / "hub").mkdir()
        return Maker(tmp_path / "hub")

    @pytest.fixture
    def repo(self, maker: Maker) -> Path:
        maker.revision("org/sound", {"model.safetensors": maker.raw(300)}, ref="main")
        files = {"model.safetensors": maker.raw(500), "config.json": b"{}"}
        maker.revision("org/broken", files, ref="main")
        return maker.root / "models--org--broken"

    @pytest.mark.parametrize("how", BREAKS)
    def test_one_goes_when_it_is_named_and_not_by_itself(
        self, maker: Maker, repo: Path, how: Callable[[Path], None]
    ) -> None:
        how(repo)
        plan = maker.plan()
        assert removed(plan) == []
        assert plan.cache.unreadable == ()
        (row,) = [row for row in plan.rows if row.kind == "broken"]
        assert (row.id, row.repo) == ("org/broken:broken", "org/broken")
        assert row.reason == "the hub library cannot read it; name it, and it goes"
        done = carry_out(maker.plan("org/broken"))
        assert not repo.exists()
        assert done.freed_nbytes == row.nbytes >= 2
        assert [r.repo_id for r in done.plan.cache.revisions] == ["org/sound"]
        assert scan_cache_dir(maker.root).warnings == []

    @pytest.mark.parametrize("what", LEAVES)
    def test_what_a_stopped_deletion_left_goes_by_itself(
        self, maker: Maker, repo: Path, what: Callable[[Path], None]
    ) -> None:
        what(repo)
        plan = maker.plan()
        (row,) = plan.removed
        assert (row.kind, row.repo, row.nbytes) == ("unreferenced", "org/broken", row.nbytes)
        assert row.nbytes >= 502
        assert carry_out(plan).freed_nbytes == row.nbytes
        assert not repo.exists()

    def test_one_that_somebody_is_just_writing_to_stays(self, maker: Maker, repo: Path) -> None:
        shutil.rmtree(repo / "snapshots")
        (repo / "blobs" / "x.incomplete").write_bytes(b"just now")
        (row,) = [row for row in maker.plan("org/broken").rows if row.repo == "org/broken"]
        assert (row.remove, row.reason) == (False, "kept: being downloaded")

    def test_a_deletion_that_was_killed_at_any_call_can_be_finished(
        self, maker: Maker, repo: Path
    ) -> None:
        """The library deletes; it may be stopped before each file and folder that it deletes."""
        home = maker.root.rename(maker.root.with_name("before"))
        for step in range(1, 30):
            shutil.rmtree(maker.root, ignore_errors=True)
            shutil.copytree(home, maker.root, symlinks=True)
            pid = os.fork()
            if pid == 0:
                die_at_deletion(step)
                carry_out(plan_clean_cache("org/broken", cache=maker.root))
                os._exit(0)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if repo.exists():
                carry_out(maker.plan("org/broken"))
            assert not repo.exists(), step
            assert (maker.root / "models--org--sound").exists()
            if status == 0:
                break
        assert 3 < step < 29


def die_at_deletion(number: int) -> None:
    """End this process when so many files and folders were deleted."""
    left = iter(range(number - 1, -1, -1))
    for name in ("unlink", "remove", "rmdir"):
        delete = getattr(os, name)

        def count(*args: Any, delete: Any = delete, **options: Any) -> None:
            if next(left) == 0:
                os._exit(9)
            delete(*args, **options)

        setattr(os, name, count)


class TestSelectors:
    def test_older_than_goes_by_last_use(self, maker: Maker) -> None:
        maker.revision("org/old", {"model.safetensors": maker.raw(500)}, used=45)
        new = maker.revision("org/new", {"model.safetensors": maker.raw(500)}, used=3, modified=90)
        plan = maker.plan(older_than_s=30 * DAY)
        assert [row.reason for row in plan.rows] == ["used 3 days ago", "not used for 45 days"]
        assert maker.clean(older_than_s=30 * DAY) == 500
        assert maker.left() == {f"org/new@{new}"}

    def test_by_modified_goes_by_when_it_was_downloaded(self, maker: Maker) -> None:
        old = maker.revision("org/old", {"model.safetensors": maker.raw(500)}, used=45, modified=46)
        maker.revision("org/new", {"model.safetensors": maker.raw(600)}, used=3, modified=90)
        assert maker.clean(older_than_s=60 * DAY, by="modified") == 600
        assert maker.left() == {f"org/old@{old}"}

    def test_max_size_evicts_the_least_recently_used_and_no_more(self, maker: Maker) -> None:
        days = {"org/a": 5, "org/b": 50, "org/c": 20, "org/d": 1}
        commits = {
            name: maker.revision(name, {"model.safetensors": maker.raw(1000)}, used=used)
            for name, used in days.items()
        }
        plan = maker.plan(max_nbytes=2500)
        assert {row.repo for row in plan.removed} == {"org/b", "org/c"}
        assert all(row.reason == "fits into 2.50 kB" for row in plan.rows if not row.remove)
        assert maker.clean(max_nbytes=2500) == 2000
        assert maker.left() == {f"{name}@{commits[name]}" for name in ("org/a", "org/d")}

    def test_leftovers_are_evicted_before_any_model(self, maker: Maker) -> None:
        maker.revision("org/a", {"model.safetensors": maker.raw(1000)}, used=300)
        maker.leftover("org/a", f"{'0' * 64}.incomplete", 900)
        plan = maker.plan(max_nbytes=1000)
        assert removed(plan) == ["org/a:incomplete"]
        assert maker.clean(max_nbytes=1000) == 900

    def test_max_size_counts_what_is_shared_once(self, maker: Maker) -> None:
        big = maker.raw(1000)
        maker.revision("org/a", {"model.safetensors": big}, used=9)
        maker.revision("org/a", {"model.safetensors": big, "x.safetensors": maker.raw(100)}, used=8)
        assert removed(maker.plan(max_nbytes=1100)) == []
        assert len(removed(maker.plan(max_nbytes=1000))) == 2

    def test_selectors_narrow(self, maker: Maker) -> None:
        one = maker.revision("org/a", {"model.safetensors": maker.raw(500)}, used=45)
        maker.revision("org/b", {"model.safetensors": maker.raw(500)}, used=45)
        two = maker.revision("org/b", {"model.safetensors": maker.raw(501)}, used=3)
        assert maker.clean("org/b", older_than_s=30 * DAY) == 500
        assert maker.left() == {f"org/a@{one}", f"org/b@{two}"}

    def test_max_size_evicts_only_among_what_is_selected(self, maker: Maker) -> None:
        maker.revision("org/a", {"model.safetensors": maker.raw(500)}, used=90)
        maker.revision("org/b", {"model.safetensors": maker.raw(500)}, used=3)
        plan = maker.plan("org/b", max_nbytes=100)
        assert [row.repo for row in plan.removed] == ["org/b"]
        assert "500 B stay" in plan.notes[0]

    def test_keep_last_counts_per_repository_and_prefers_what_has_a_name(
        self, maker: Maker
    ) -> None:
        # The oldest is where `main` stands: it was pinned on purpose.
        main = maker.revision("org/a", {"model.safetensors": maker.raw(500)}, ref="main", used=90)
        maker.revision("org/a", {"model.safetensors": maker.raw(501)}, used=50)
        new = maker.revision("org/a", {"model.safetensors": maker.raw(502)}, used=3)
        other = maker.revision("org/b", {"model.safetensors": maker.raw(503)}, used=300)
        assert maker.clean(keep_last=2) == 501
        assert maker.left() == {f"org/a@{main}", f"org/a@{new}", f"org/b@{other}"}

    def test_a_name_that_stood_at_a_deleted_revision_goes_with_it(self, maker: Maker) -> None:
        maker.revision("org/a", {"model.safetensors": maker.raw(500)}, ref="v1")
        maker.revision("org/a", {"model.safetensors": maker.raw(501)}, ref="main")
        assert maker.clean("org/a@v1") == 500
        refs = maker.root / "models--org--a" / "refs"
        assert [path.name for path in refs.iterdir()] == ["main"]

    def test_keep_wins_over_everything(self, maker: Maker) -> None:
        maker.revision("lmsys/vicuna", {"model.safetensors": maker.raw(500)}, used=90)
        maker.revision("org/b", {"model.safetensors": maker.raw(500)}, used=90)
        maker.leftover("lmsys/vicuna", f"{'0' * 64}.incomplete", 900)
        plan = maker.plan(older_than_s=DAY, keep=["lmsys/*"])
        assert removed(plan) == ["org/b@" + plan.removed[0].revision[:12]]
        assert "kept: `keep=lmsys/*`" in reasons(plan).values()
        everything = [row.id for row in plan.rows]
        assert {row.repo for row in choose(plan, everything).removed} == {"org/b"}


class TestSources:
    def test_a_hub_id_an_alias_and_a_revision_name_rows(self, maker: Maker) -> None:
        first = maker.revision("huggyllama/llama-7b", {"model.safetensors": maker.raw(500)})
        second = maker.revision(
            "huggyllama/llama-7b", {"model.safetensors": maker.raw(501)}, ref="main"
        )
        names = {
            "huggyllama/llama-7b": {first, second},
            "HuggyLlama/LLaMA-7B": {first, second},
            "llama-7b": {first, second},
            "huggyllama/llama-7b@main": {second},
            f"huggyllama/llama-7b@{first[:9]}": {first},
        }
        for name, commits in names.items():
            assert {row.revision for row in maker.plan(name).removed} == commits, name

    def test_what_is_not_in_the_cache_is_said_with_what_is(self, maker: Maker) -> None:
        maker.revision("org/a", {"model.safetensors": b"x"})
        with pytest.raises(NotInCache) as error:
            maker.plan("org/b")
        assert error.value.context == ("org/a",)
        with pytest.raises(NotInCache):
            maker.plan("org/a@v9")

    def test_a_directory_is_no_source_here(
        self, maker: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        maker.revision("org/a", {"model.safetensors": b"x"})
        monkeypatch.chdir(tmp_path)
        (tmp_path / "org" / "a").mkdir(parents=True)
        assert len(maker.plan("org/a").removed) == 1
        with pytest.raises(SourceIsDirectory):
            maker.plan("./org/a")

    def test_a_data_set_of_the_same_name_is_not_meant(self, maker: Maker) -> None:
        maker.revision("org/a", {"model.safetensors": b"x"})
        maker.revision("org/a", {"data.bin": b"y"}, kind="datasets")
        assert [row.repo for row in maker.plan("org/a").removed] == ["org/a"]


class TestDuplicates:
    BOTH = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")

    def test_bin_weights_beside_whole_safetensors_go(self, maker: Maker) -> None:
        files = {name: maker.raw(500) for name in self.BOTH}
        files |= {"pytorch_model-00001-of-00001.bin": maker.raw(900), "config.json": b"{}"}
        files |= {"pytorch_model.bin.index.json": b"{}", "training_args.bin": b"t"}
        commit = maker.revision("org/a", files, ref="main")
        assert maker.clean(duplicates=True) == 902 - 2  # the index is the config's twin
        folder = maker.root / "models--org--a" / "snapshots" / commit
        kept = {*self.BOTH, "config.json", "training_args.bin"}
        assert {path.name for path in folder.iterdir()} == kept

    def test_bin_weights_beside_half_of_the_safetensors_stay(self, maker: Maker) -> None:
        files = {self.BOTH[0]: b"1", "pytorch_model.bin": b"2"}
        maker.revision("org/a", files)
        assert maker.clean(duplicates=True) == 0

    def test_bin_weights_that_another_revision_needs_stay_on_disk(self, maker: Maker) -> None:
        weights = maker.raw(900)
        old = maker.revision("org/a", {"pytorch_model.bin": weights})
        maker.revision("org/a", {"pytorch_model.bin": weights, "model.safetensors": b"s"})
        assert maker.clean(duplicates=True) == 0
        file = maker.root / "models--org--a" / "snapshots" / old / "pytorch_model.bin"
        assert file.read_bytes() == weights

    def test_looking_for_them_does_not_count_as_use(self, maker: Maker) -> None:
        files = dict.fromkeys(self.BOTH, b"s") | {"pytorch_model.bin": b"b"}
        files |= {"model.safetensors.index.json": b"{}"}
        maker.revision("org/a", files, used=40)
        before = {path: path.stat().st_atime for path in maker.root.rglob("blobs/*")}
        maker.plan(duplicates=True, older_than_s=DAY)
        assert {path: path.stat().st_atime for path in before} == before


class TestSharedBlobs:
    def test_shared_bytes_stay_until_the_last_repository_lets_go(self, maker: Maker) -> None:
        weights = maker.raw(1000)
        maker.revision("org/a", {"model.safetensors": weights}, used=9)
        kept = maker.revision("org/b", {"model.safetensors": weights}, used=5)
        store = maker.share("org/a", "model.safetensors", weights)
        assert maker.share("org/b", "model.safetensors", weights) == store
        plan = maker.plan()
        assert plan.cache.nbytes == 1000
        assert maker.clean("org/a") == 0
        file = maker.root / "models--org--b" / "snapshots" / kept / "model.safetensors"
        assert file.read_bytes() == weights
        assert maker.clean("org/b") == 1000
        assert not store.exists()

    def test_both_together_free_it_once(self, maker: Maker) -> None:
        weights = maker.raw(1000)
        for name in ("org/a", "org/b"):
            maker.revision(name, {"model.safetensors": weights}, used=9)
            maker.share(name, "model.safetensors", weights)
        assert maker.clean("org/a", "org/b") == 1000

    def test_a_single_file_goes_from_the_store_too(self, maker: Maker) -> None:
        weights = maker.raw(1000)
        maker.revision("org/a", {"pytorch_model.bin": weights, "model.safetensors": b"s"})
        store = maker.share("org/a", "pytorch_model.bin", weights)
        assert maker.clean(duplicates=True) == 1000
        assert not store.exists()

    def test_shared_bytes_that_nobody_points_at_are_unreferenced(self, maker: Maker) -> None:
        weights = maker.raw(1000)
        maker.revision("org/a", {"model.safetensors": weights}, used=9)
        store = maker.share("org/a", "model.safetensors", weights)
        maker.revision("org/b", {"model.safetensors": b"b"}, used=9)
        for path in sorted((maker.root / "models--org--a").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (maker.root / "models--org--a").rmdir()
        assert removed(maker.plan()) == ["shared:unreferenced"]
        assert maker.clean() == 1000
        assert not store.exists()


class TestLastUse:
    def test_a_file_system_that_does_not_record_it_is_not_believed(self, maker: Maker) -> None:
        maker.revision("org/a", {"model.safetensors": maker.raw(500)}, used=9, modified=9)
        for options in ({"older_than_s": DAY}, {"max_nbytes": 10}):
            with pytest.raises(LastUsedUnknown) as error:
                maker.plan(**options)
            assert "by=modified" in error.value.hint_text
            assert len(maker.plan(**options, by="modified").removed) == 1
        (row,) = maker.plan().rows
        assert row.used is None

    def test_noatime_is_noticed(self, maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
        maker.revision("org/a", {"model.safetensors": maker.raw(500)}, used=9)

        class Flags:
            f_flag = os.ST_NOATIME

        monkeypatch.setattr(os, "statvfs", lambda _: Flags)
        with pytest.raises(LastUsedUnknown, match="noatime"):
            maker.plan(older_than_s=DAY)


class TestNothingElseGoes:
    @pytest.mark.parametrize("link", ["a file", "a blob", "a snapshot"])
    def test_what_a_link_leads_to_outside_the_cache_stays(
        self, maker: Maker, tmp_path: Path, link: str
    ) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        mine = elsewhere / "model.safetensors"
        mine.write_bytes(b"mine")
        maker.revision("org/a", {"model.safetensors": maker.raw(500)}, ref="main")
        repo = maker.root / "models--org--a"
        snapshot, blob = repo / "snapshots" / ("b" * 40), repo / "blobs" / ("c" * 64)
        if link == "a snapshot":
            snapshot.symlink_to(elsewhere)
        else:
            snapshot.mkdir()
            if link == "a blob":
                blob.symlink_to(mine)
            (snapshot / "model.safetensors").symlink_to(blob if link == "a blob" else mine)
        plan = maker.plan("org/a")
        row = f"org/a@{'b' * 12}"
        assert reasons(plan)[row] == "kept: model.safetensors outside the cache"
        assert removed(choose(plan, [row])) == []
        carry_out(plan)
        assert mine.read_bytes() == b"mine"
        assert (snapshot / "model.safetensors").read_bytes() == b"mine"

    def test_a_repository_that_lies_on_another_disk_can_go(
        self, maker: Maker, tmp_path: Path
    ) -> None:
        maker.revision("org/a", {"model.safetensors": maker.raw(500)})
        maker.revision("org/a", {"model.safetensors": maker.raw(600)}, ref="main")
        repo = maker.root / "models--org--a"
        shutil.move(repo, tmp_path / "disk")
        repo.symlink_to(tmp_path / "disk")
        plan = maker.plan("org/a")
        (old,) = [row for row in plan.rows if not row.refs]
        assert carry_out(choose(plan, [old.id])).freed_nbytes == 500

    def test_what_two_revisions_share_stays_for_the_other(self, maker: Maker) -> None:
        big = maker.raw(1000)
        maker.revision("org/a", {"model.safetensors": big, "config.json": b"old"})
        new = maker.revision(
            "org/a", {"model.safetensors": big, "config.json": b"new!"}, ref="main"
        )
        plan = maker.plan("org/a")
        (old,) = [row for row in plan.rows if row.revision != new]
        cleaned = carry_out(choose(plan, [old.id]))
        assert cleaned.freed_nbytes == 3
        assert maker.left() == {f"org/a@{new}"}

    def test_a_fork_with_the_same_commit_is_another_repository(self, maker: Maker) -> None:
        files = {"model.safetensors": maker.raw(500)}
        commit = maker.revision("org/a", files)
        fork = maker.root / "models--org--fork"
        maker.revision("org/fork", files)
        (snapshot,) = (fork / "snapshots").iterdir()
        snapshot.rename(snapshot.with_name(commit))
        assert maker.clean("org/fork") == 500
        assert maker.left() == {f"org/a@{commit}"}

    def test_what_came_after_the_question_is_not_taken(self, maker: Maker) -> None:
        big = maker.raw(1000)
        maker.revision("org/a", {"model.safetensors": big})
        plan = maker.plan("org/a")
        new = maker.revision("org/a", {"model.safetensors": big, "config.json": b"{}"}, ref="main")
        carry_out(plan)
        folder = maker.root / "models--org--a" / "snapshots" / new
        assert (folder / "model.safetensors").read_bytes() == big
        assert maker.left() == {f"org/a@{new}"}

    def test_a_repository_that_goes_takes_its_leftovers_and_says_so(self, maker: Maker) -> None:
        maker.revision("org/a", {"model.safetensors": maker.raw(500)}, used=90)
        maker.leftover("org/a", f"{'0' * 64}.incomplete", 300, days=1)
        plan = maker.plan(older_than_s=30 * DAY)
        assert reasons(plan)["org/a:incomplete"] == "goes with its repository"
        assert maker.clean(older_than_s=30 * DAY) == 800
        assert not (maker.root / "models--org--a").exists()

    def test_what_cannot_be_deleted_is_a_fault_and_not_a_success(
        self, maker: Maker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        maker.revision("org/a", {"model.safetensors": maker.raw(500)})
        maker.leftover("org/a", f"{'0' * 64}.incomplete", 300)

        def refuse(path: Any, **_: Any) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        with monkeypatch.context() as patch:
            patch.setattr(os, "remove", refuse)
            with pytest.raises(TargetUnwritable) as error:
                carry_out(maker.plan())
        assert "incomplete" in error.value.context[0]

    def test_every_row_says_why(self, maker: Maker) -> None:
        maker.revision("org/a", {"model.safetensors": b"x", "pytorch_model.bin": b"y"}, used=9)
        maker.leftover("org/a", f"{'0' * 64}.incomplete", 300)
        for options in ({}, {"duplicates": True}, {"keep_last": 1}, {"max_nbytes": 1}):
            assert all(reasons(maker.plan(**options)).values()), options

    def test_what_a_selector_does_not_take_says_which(self, maker: Maker) -> None:
        files = {"model.safetensors": b"x", "pytorch_model.bin": b"y"}
        name = f"org/a@{maker.revision('org/a', files, used=9)[:12]}"
        maker.leftover("org/a", f"{'0' * 64}.incomplete", 300)
        assert reasons(maker.plan())[name] == "no option selects it"
        assert reasons(maker.plan(duplicates=True))[name] == "`duplicates` does not select it"
        kept = reasons(maker.plan(keep_last=1))
        assert kept["org/a:incomplete"] == "`keep_last` does not select it"
        assert kept[f"{name}:duplicates"] == "goes by itself only with `duplicates=True`"

    @pytest.mark.parametrize(
        "hours, said",
        [(0.5, "less than an hour"), (1.5, "1 hour"), (47, "47 hours"), (49, "2 days")],
    )
    def test_an_age_is_told_in_hours_then_in_days(
        self, maker: Maker, hours: float, said: str
    ) -> None:
        maker.revision("org/a", {"model.safetensors": b"x"}, used=hours / 24)
        (reason,) = reasons(maker.plan(older_than_s=30 * DAY)).values()
        assert reason == f"used {said} ago"

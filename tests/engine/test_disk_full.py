"""A full disk, told by the system when we write: clear, harmless, and made good by room."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.children import Children
from tests.support.folders import contents, copied, hidden, staging, state


@pytest.mark.sampled(5)
@pytest.mark.parametrize("limit", [100, 5_000, 20_000, 40_000, 60_000])
@pytest.mark.parametrize("size", [40_000, 10**9], ids=["sharded", "one shard"])
def test_a_full_disk_publishes_nothing_and_room_finishes_the_job(
    size: int, limit: int, vectors: Path, tmp_path: Path, children: Children
) -> None:
    base, delta = (copied(vectors / "vicuna_v1_1" / s, tmp_path / s) for s in ("base", "delta"))
    inputs = state(base, delta)
    target = tmp_path / "outputs" / "vicuna"
    plan = {"max_shard_nbytes": size}
    full = children.apply(base, delta, target, plan=plan, file_size_limit=limit)
    if size < limit:
        assert (full.unknown, full.error) == ("", "")  # every file is below the limit
    else:
        assert (full.unknown, full.error, full.exit_code) == ("", "disk-full", 8)
        assert str(target.parent) in full.message
        assert not target.exists()
    assert state(base, delta) == inputs
    again = children.apply(base, delta, target, plan=plan)
    assert (again.unknown, again.error) == ("", "")
    assert hidden(target.parent) == []
    straight = children.apply(base, delta, tmp_path / "straight", plan=plan)
    assert straight.error == ""
    assert contents(target) == contents(tmp_path / "straight")


def test_a_plan_that_cannot_fit_is_refused_before_anything_is_written(
    vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from weightsmith.errors import DiskTooSmall
    from weightsmith.ops.apply_delta import apply_delta

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=50_000))
    vector = vectors / "vicuna_v1_1"
    with pytest.raises(DiskTooSmall) as caught:
        apply_delta(vector / "base", vector / "delta", target=tmp_path / "out", repair=False)
    assert caught.value.values["free"] == "50.0 kB"
    assert list(tmp_path.iterdir()) == []


def test_work_already_in_staging_needs_no_room_a_second_time(
    vectors: Path, tmp_path: Path, children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    from weightsmith.engine.options import Options
    from weightsmith.ops.apply_delta import plan_apply_delta
    from weightsmith.ops.job import needs

    base, delta = (vectors / "vicuna_v1_1" / side for side in ("base", "delta"))
    job = plan_apply_delta(
        base, delta, target=tmp_path / "out", repair=False, max_shard_nbytes=30_000
    )
    before = needs(job, Options())
    died = children.apply(
        base, delta, tmp_path / "out", plan={"max_shard_nbytes": 30_000}, die_at_step=12
    )
    assert died.exit != 0
    written = [
        path.stat().st_size for path in (staging(tmp_path / "out") / "output").glob("*.safetensors")
    ]
    assert len(written) >= 3
    assert before.disk_nbytes - needs(job, Options()).disk_nbytes == sum(written)
    assert needs(job, Options(restart=True)).disk_nbytes == before.disk_nbytes

    scandir = os.scandir

    @contextlib.contextmanager
    def list_and_publish(folder: Path) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(folder) as entries:
            listed = list(entries)
        folder.rename(tmp_path / "out")
        yield listed

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", list_and_publish)
        found = needs(job, Options())
    assert found.disk_nbytes == before.disk_nbytes

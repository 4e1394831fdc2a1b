"""What a run needs: counted from the plan, compared with what the machine says."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from weightsmith.errors import DiskTooSmall, DownloadTooLarge, MemoryTooSmall
from weightsmith.formats.tensors import TensorInfo
from weightsmith.ops.job import require_room
from weightsmith.plan import needs
from weightsmith.plan.model import DeltaPlan, InputTensor, Plan, TensorPlan
from weightsmith.plan.needs import assess
from weightsmith.plan.shards import lay_out

MIB = 1024**2


def plan_of(*dtypes: str, output: str = "F16", rows: int = 10) -> Plan:
    inputs = tuple(InputTensor("base", TensorInfo("w", dtype, (rows, 1000))) for dtype in dtypes)
    params = {"compute": output, "dtype": output}
    tensor = TensorPlan(TensorInfo("w", output, (rows, 1000)), "add@1", params, inputs)
    return Plan("apply-delta", (), lay_out([tensor], 10**12), ())


def test_disk_is_what_will_be_written_less_what_is_there(tmp_path: Path) -> None:
    plan = plan_of("F16", "F16", rows=10_000)
    fresh = assess(plan, tmp_path, workers=2, kept_nbytes=0)
    assert fresh.disk_nbytes - plan.nbytes == needs.SLACK_NBYTES
    kept = assess(plan, tmp_path, workers=2, kept_nbytes=15_000_000)
    assert fresh.disk_nbytes - kept.disk_nbytes == 15_000_000
    more = assess(plan, tmp_path, workers=2, kept_nbytes=10**12)
    assert more.disk_nbytes == needs.SLACK_NBYTES


def test_memory_grows_with_workers_and_wider_inputs_and_not_with_the_model(tmp_path: Path) -> None:
    def memory(plan: Plan, workers: int) -> int:
        return assess(plan, tmp_path, workers=workers, kept_nbytes=0).memory_nbytes

    one = memory(plan_of("F16", "F16"), 1)
    assert memory(plan_of("F16", "F16"), 4) - one == 3 * 3 * 2 * MIB
    assert memory(plan_of("F32", "F16"), 1) - one == 2 * MIB
    assert memory(plan_of("F16", "F16", rows=10**6), 1) == one


def test_torch_counts_where_matrices_are_multiplied_and_nowhere_else(tmp_path: Path) -> None:
    plan = plan_of("F32", "F16", "F16")
    (tensor,) = plan.tensors
    params = {"dtype": "F16", "rounding": "once", "steps": "linear*1.0"}
    lora = replace(tensor, codec="lora@1", params=params)
    merged = replace(plan, shards=lay_out([lora], 10**12))
    without, with_torch = (
        assess(each, tmp_path, workers=0, kept_nbytes=0).memory_nbytes for each in (plan, merged)
    )
    assert (without, with_torch - without) == (needs.RUNTIME_NBYTES, needs.TORCH_NBYTES)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no file system without a size here")
def test_a_file_system_that_does_not_tell_its_size_is_not_taken_for_a_full_one() -> None:
    """Some of a network's say zero, and one of memory that has no limit does."""
    found = assess(plan_of("F16", "F16", rows=10), Path("/proc"), workers=1, kept_nbytes=0)
    assert found.disk_free_nbytes is None
    require_room(found)


def test_too_little_of_either_is_refused_with_both_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of("F16", "F16", rows=1_000_000)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**9))
    with pytest.raises(DiskTooSmall, match=r"has 1\.00 GB free, the run needs 2\.00 GB"):
        require_room(assess(plan, tmp_path, workers=1, kept_nbytes=0))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**12))
    monkeypatch.setattr(needs, "available_memory", lambda: 50 * MIB)
    with pytest.raises(
        MemoryTooSmall, match=r"50\.0 MiB of memory available, this needs 66\.0 MiB"
    ):
        require_room(assess(plan, tmp_path, workers=1, kept_nbytes=0))
    monkeypatch.setattr(needs, "available_memory", lambda: None)
    require_room(assess(plan, tmp_path, workers=1, kept_nbytes=0))


def test_a_cache_on_another_disk_is_held_against_what_that_has_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    usage = shutil.disk_usage(tmp_path)
    free = {cache: 10**9, out: 10**12}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free[path]))
    monkeypatch.setattr(needs, "disk_of", free.__getitem__)
    found = assess(
        plan_of("F16"), out, workers=1, kept_nbytes=0, fetched_nbytes=2 * 10**9, cache=cache
    )
    assert found.disk_nbytes < 10**9
    with pytest.raises(DownloadTooLarge, match=r"cache has 1\.00 GB free, .* needs 2\.00 GB"):
        require_room(found)


def test_an_exact_delta_is_not_refused_for_what_it_takes_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    monkeypatch.setattr(needs, "available_memory", lambda: None)
    plan = plan_of("F16", "F16")
    with pytest.raises(DiskTooSmall):
        require_room(assess(plan, tmp_path, workers=1, kept_nbytes=0))
    exact = replace(plan, delta=DeltaPlan("exact-delta@1"))
    found = assess(exact, tmp_path, workers=1, kept_nbytes=0)
    assert found.is_at_most
    require_room(found)

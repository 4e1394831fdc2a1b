"""Memory is a few spans, whatever the model: a real process, its real peak."""

import sys
from pathlib import Path

import pytest

from tests.bench import peaks
from tests.support.cgroup import limited
from tests.support.folders import sparse_model
from tests.support.hub.server import Hub
from tests.support.memory import HAS_PEAK, MIB, peak_nbytes
from tests.support.paths import ROOT

MEASURE = """
import sys
from weightsmith.engine.options import Options
from weightsmith.ops.apply_delta import apply_delta
base, delta, target, mode = sys.argv[1:]
options = Options(workers=2, low_cpu_mem=mode == "low")
apply_delta(base, delta, target=target, options=options, max_shard_nbytes=100_000_000)
"""


def peak(home: Path, nbytes: int, *, base: str, mode: str) -> int:
    """Peak resident bytes of a process that applies a delta of so many bytes."""
    return peak_nbytes(
        MEASURE,
        sparse_model(home / "base", nbytes * (2 if base == "F32" else 1), dtype=base),
        sparse_model(home / "delta", nbytes, dtype="F16"),
        home / "target",
        mode,
    )


@pytest.mark.slow
@HAS_PEAK
@pytest.mark.parametrize(
    "base, mode, limit", [("F16", "default", 320), ("F16", "low", 280), ("F32", "default", 320)]
)
def test_four_times_the_model_needs_the_same_memory(
    base: str, mode: str, limit: int, tmp_path: Path
) -> None:
    small = peak(tmp_path / "small", 75_000_000, base=base, mode=mode)
    large = peak(tmp_path / "large", 300_000_000, base=base, mode=mode)
    print(f"{base} {mode}: {small / MIB:.0f} and {large / MIB:.0f} MiB")
    assert abs(large - small) < 16 * MIB
    assert large < limit * MIB


@pytest.mark.slow
def test_a_model_is_made_in_less_memory_than_it_has_bytes_with_the_page_cache_counted(
    on_disk: Path,
) -> None:
    limit = 256 * MIB
    line = [
        *(sys.executable, "-m", "weightsmith", "apply-delta"),
        *("--base", str(sparse_model(on_disk / "base", 4 * limit, dtype="F16"))),
        *("--delta", str(sparse_model(on_disk / "delta", 4 * limit, dtype="F16"))),
        *("--target", str(on_disk / "target"), "--max-shard-size", "200MB"),
    ]
    with limited(limit) as group:
        if group is None:
            pytest.skip("this process may make no control group")
        done = group.run(line, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        assert group.peak_nbytes() <= limit


@pytest.mark.slow
@HAS_PEAK
def test_every_command_stays_below_its_bound(on_disk: Path) -> None:
    with Hub() as hub:
        peaks.make_models(on_disk, 250_000_000, hub)
        found = {each.name: peaks.measure(on_disk, each, hub) for each in peaks.COMMANDS}
    print(peaks.table(found))
    limits = {each.name: each.limit * MIB for each in peaks.COMMANDS}
    assert {name: nbytes for name, nbytes in found.items() if nbytes > limits[name]} == {}

"""Memory is a few spans, whatever the model: a real process, its real peak."""

from pathlib import Path

import pytest

from tests.support.folders import sparse_model
from tests.support.memory import HAS_PEAK, MIB, peak_nbytes

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

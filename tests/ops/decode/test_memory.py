"""Decoding needs the memory of a few spans, however large the files: a real process's real peak."""

import hashlib
from pathlib import Path

import pytest

from tests.support.memory import HAS_PEAK, MIB, peak_nbytes

MEASURE = """
import sys
from weightsmith.ops.apply_delta import apply_delta
delta, key, target = sys.argv[1:]
apply_delta(None, delta, key=key, target=target)
assert "torch" not in sys.modules
"""


def peak(home: Path, mib: int) -> int:
    """Peak resident bytes of a process that decodes a file of so many MiB, all zero."""
    digest = hashlib.sha256(bytes(mib * MIB))
    (home / "delta").mkdir(parents=True)
    (home / "key").write_bytes(bytes(MIB))  # a key of zeros leaves zeros what they are
    with (home / "delta" / f"model.dat.{digest.hexdigest()}.enc").open("wb") as file:
        file.write(digest.digest())
        file.truncate(32 + mib * MIB)
    return peak_nbytes(MEASURE, home / "delta", home / "key", home / "target")


@pytest.mark.slow
@HAS_PEAK
def test_four_times_the_file_needs_the_same_memory_and_no_torch(tmp_path: Path) -> None:
    small, large = (peak(tmp_path / str(mib), mib) for mib in (80, 320))
    print(f"{small / MIB:.0f} and {large / MIB:.0f} MiB")
    assert abs(large - small) < 8 * MIB
    assert large < 120 * MIB

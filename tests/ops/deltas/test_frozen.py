"""Deltas that were made once are read for ever."""

from pathlib import Path

import pytest

from tests.support.folders import contents
from weightsmith.ops.apply_delta import apply_delta

FROZEN = Path(__file__).parent / "frozen"


@pytest.mark.parametrize("form", sorted(path.name for path in FROZEN.iterdir()))
def test_a_frozen_delta_gives_its_target_byte_for_byte(form: str, tmp_path: Path) -> None:
    apply_delta(FROZEN / form / "base", FROZEN / form / "delta", target=tmp_path / "out")
    restored = contents(tmp_path / "out")
    assert restored.pop("weightsmith.json")
    assert restored == contents(FROZEN / form / "target")

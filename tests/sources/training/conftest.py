"""What the tests of training outputs share."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.training_cases import LEFT


@pytest.fixture
def ckpt(tmp_path: Path) -> Callable[[str], Path]:
    """Copies what a framework left, so that a test may change it."""

    def copied(case: str) -> Path:
        return Path(shutil.copytree(LEFT / case, tmp_path / "ckpt"))

    return copied

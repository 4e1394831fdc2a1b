"""Files of given bytes, opened as the readers want them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from weightsmith.fs import PositionedFile, open_for_reading


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., PositionedFile]:
    def write_and_open(content: bytes, name: str = "model.weights") -> PositionedFile:
        path = tmp_path / name
        path.write_bytes(content)
        return open_for_reading(path)

    return write_and_open

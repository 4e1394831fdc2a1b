"""What the tests of exact deltas share."""

from pathlib import Path

import pytest

from tests.support.delta_models import write_pair
from weightsmith.ops.make_delta import make_delta


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``base``, ``target`` and the ``delta`` between them, which no test writes to."""
    folder = tmp_path_factory.mktemp("made")
    make_delta(*write_pair(folder), folder / "delta")
    return folder

"""What the tests of the engine share."""

from collections.abc import Iterator

import pytest

from tests.engine.children import Children


@pytest.fixture(scope="session")
def children() -> Iterator[Children]:
    """A process that runs commands in forks of itself."""
    started = Children()
    yield started
    started.close()

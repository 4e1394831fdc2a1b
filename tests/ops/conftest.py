"""What tests of verifying and fixing share."""

import pytest

from tests.support.command_line import Said, Weightsmith
from weightsmith.cli.main import run


@pytest.fixture
def weightsmith(capfd: pytest.CaptureFixture[str]) -> Weightsmith:
    """Run a command line; what any library says is in what was said."""

    def go(*args: object) -> Said:
        capfd.readouterr()
        code = run([str(arg) for arg in args])
        return Said(code, *capfd.readouterr())

    return go

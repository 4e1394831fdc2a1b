"""Command lines run in this process, and what they said."""

import io
import sys

import pytest

from tests.support.command_line import Said, Weightsmith
from weightsmith.cli.main import COMMANDS, run


@pytest.fixture
def weightsmith(monkeypatch: pytest.MonkeyPatch) -> Weightsmith:
    """Run a command line, with the command of `sample_command` beside the real ones."""
    monkeypatch.setitem(COMMANDS, "sample", ("tests.support.sample_command", "Say one of each."))

    def go(*args: str, encoding: str = "utf-8", terminal: bool = False) -> Said:
        raw = [io.BytesIO(), io.BytesIO()]
        streams = [io.TextIOWrapper(each, encoding=encoding) for each in raw]
        if terminal:
            for each in streams:
                monkeypatch.setattr(each, "isatty", lambda: True)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            code = run(args)
        for each in streams:
            each.flush()
        return Said(code, *(each.getvalue().decode(encoding) for each in raw))

    return go

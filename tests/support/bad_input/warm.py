"""Imported by the process that forks runs with less rights: a run that is sound, which imports all
that somebody else could perhaps not read, once for all of them.
"""

import tempfile
from pathlib import Path

from tests.support.bad_input.answers import command
from tests.support.bad_input.case import ARGS, write_pair

with tempfile.TemporaryDirectory() as folder:
    write_pair(Path(folder))
    command(Path(folder), ["apply-delta", *ARGS])

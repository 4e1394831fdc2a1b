"""Open what a user names."""

import os
from pathlib import Path

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint, open_checkpoint
from weightsmith.errors import SourceNotFound


def open_source(source: str | os.PathLike[str]) -> Checkpoint:
    """Open a SOURCE for reading: a directory.

    Raises: SourceNotFound, SourceUnreadable, and what `open_checkpoint` raises.
    """
    text = os.fspath(source)
    path = Path(text)
    with fs.translated_read_errors(path):
        is_directory, exists = path.is_dir(), path.exists()
    if is_directory:
        return open_checkpoint(path, label=text)
    if exists:
        hint = "give the directory that holds it"
        raise SourceNotFound(source=text, context=["it is a file"], hint=hint)
    raise SourceNotFound(source=text)

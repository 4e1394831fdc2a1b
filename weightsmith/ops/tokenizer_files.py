"""Read the tokenizer and config files of a folder for a diagnosis."""

import os
from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.checkpoint.opening import open_checkpoint
from weightsmith.checkpoint.sidecars import TOKENIZER, matches
from weightsmith.errors import NoTokenizer, NoWeights, WeightsmithError
from weightsmith.repair.contents import READ

LIMIT_NBYTES: Final = 64_000_000
"""Largest file that is read; the largest tokenizer.json of a published model has 34 MB."""


def read_files(folder: Path) -> dict[str, bytes]:
    """The files that a diagnosis looks at, by name.

    Raises: SourceNotFound, SourceIsFile, NoTokenizer; and as `read_if_there`.
    """
    fs.require_directory(folder)
    with fs.translated_read_errors(folder):
        names = os.listdir(folder)  # noqa: PTH208  (names are all that is wanted)
    if not any(matches(name, TOKENIZER) for name in names):
        raise NoTokenizer(source=folder)
    contents = {name: read_if_there(folder / name) for name in READ}
    return {name: raw for name, raw in contents.items() if raw is not None}


def read_if_there(path: Path) -> bytes | None:
    """A file's content, or None if there is nothing of this name. A link that leads nowhere counts
    as something.

    Raises: LinkBroken, SourceUnreadable, NotRegularFile, FileTooLarge.
    """
    return fs.read_small(path, LIMIT_NBYTES) if os.path.lexists(path) else None


def embedding_rows(folder: Path) -> tuple[int | None, tuple[str, ...]]:
    """How many rows the weights' embeddings have, and a note if the weights cannot be read; None if
    that is not known.
    """
    try:
        return open_checkpoint(folder).embedding_rows, ()
    except NoWeights:
        return None, ()
    except WeightsmithError as error:
        return None, (f"the vocabulary's rows are taken from config.json: {error}",)

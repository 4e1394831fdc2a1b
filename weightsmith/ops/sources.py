"""Open what a user names."""

import os
from pathlib import Path

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint, open_checkpoint
from weightsmith.checkpoint.layout import layout_of
from weightsmith.errors import EncodedRelease, SourceNotFound
from weightsmith.ops.meta import open_meta


def open_source(source: str | os.PathLike[str]) -> Checkpoint:
    """Open a SOURCE for reading: a directory, of Hugging Face's or of Meta's layout.

    Raises: SourceNotFound, SourceUnreadable; EncodedRelease, for files that are no weights until
    they are decoded; and what `open_checkpoint` and `open_meta` raise.
    """
    text = os.fspath(source)
    if not text:  # an unset variable, say; as a path it would be the working directory
        raise SourceNotFound(source='""')
    path = Path(text)
    with fs.translated_read_errors(path):
        is_directory, exists = path.is_dir(), path.exists()
    if is_directory:
        layout = layout_of(path)
        if layout is not None and layout.kind == "meta":
            return open_meta(path, layout.files, label=text)
        if layout is not None and layout.kind in {"xor-release", "keystream-release"}:
            needed = "--base BASE" if layout.kind == "xor-release" else "--key FILE"
            hint = f"decode it first: weightsmith apply-delta {needed} --delta {text}"
            raise EncodedRelease(source=text, reason=layout.reason, hint=hint)
        return open_checkpoint(path, label=text)
    if exists:
        hint = "give the directory that holds it"
        raise SourceNotFound(source=text, context=["it is a file"], hint=hint)
    raise SourceNotFound(source=text)

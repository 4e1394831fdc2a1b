"""Open what a user names."""

import os
import stat
from pathlib import Path

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint, open_adapter, open_checkpoint
from weightsmith.checkpoint.layout import layout_of
from weightsmith.errors import EncodedRelease, SourceIsFile, SourceNotFound
from weightsmith.ops.meta import open_meta


def open_source(source: str | os.PathLike[str]) -> Checkpoint:
    """Open a SOURCE for reading: a directory, of Hugging Face's or of Meta's layout.

    Raises: SourceNotFound, SourceUnreadable; EncodedRelease, for files that are no weights until
    they are decoded; and what `open_checkpoint` and `open_meta` raise.
    """
    path, text = _directory(source)
    layout = layout_of(path)
    if layout is not None and layout.kind == "meta":
        return open_meta(path, layout.files, label=text)
    if layout is not None and layout.kind in {"xor-release", "keystream-release"}:
        needed = "--base BASE" if layout.kind == "xor-release" else "--key FILE"
        hint = f"decode it first: weightsmith apply-delta {needed} --delta {text}"
        raise EncodedRelease(source=text, reason=layout.reason, hint=hint)
    return open_checkpoint(path, label=text)


def open_lora(source: str | os.PathLike[str]) -> Checkpoint:
    """Open a SOURCE that is a LoRA adapter: a directory.

    Raises: SourceNotFound, SourceUnreadable, and what `open_adapter` raises.
    """
    path, text = _directory(source)
    return open_adapter(path, label=text)


def _directory(source: str | os.PathLike[str]) -> tuple[Path, str]:
    """The directory that a SOURCE names, and the SOURCE as text.

    Raises: SourceNotFound, LinkBroken, SourceIsFile, SourceUnreadable.
    """
    text = os.fspath(source)
    if not text:  # an unset variable, say; as a path it would be the working directory
        raise SourceNotFound(source='""')
    path = Path(text)
    with fs.translated_read_errors(path):
        is_directory = stat.S_ISDIR(path.stat().st_mode)
    if not is_directory:
        raise SourceIsFile(source=text, directory=path.parent)
    return path, text

"""What an exact delta keeps of the target's weight files, so that they come back byte for byte."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from weightsmith import fs
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.layout import INDEXES
from weightsmith.formats.safetensors_header import MAX_HEADER_NBYTES, read_header
from weightsmith.plan.exact_record import are_file_names


@dataclass(frozen=True, slots=True)
class Originals:
    """Headers and index of the target's files; empty unless all can be restored byte for byte."""

    headers: Mapping[str, bytes] = field(default_factory=dict)
    """By name, a file's first bytes, up to the first tensor."""
    index: bytes | None = None
    """The content of the index, where there is one."""


def originals_of(target: Checkpoint) -> Originals:
    """The weight files that a delta can restore: all of them, or none.

    They must be safetensors files, between whose tensors nothing lies, have no tensor that the
    target's index leaves out, and names under which they can be made in one directory anywhere.
    """
    names = [file.name for file in target.files]
    if target.rules or not are_file_names(names):
        return Originals()
    headers = {}
    for name in names:
        header, headers[name] = read_header(target.peek(name))
        listed = (target.tensors.get(stored.info.name) for stored in header.tensors)
        if not all(tensor is not None and tensor.file == name for tensor in listed):
            return Originals()
    path = target.directory / INDEXES[0]
    return Originals(headers, fs.read_small(path, MAX_HEADER_NBYTES) if path.is_file() else None)

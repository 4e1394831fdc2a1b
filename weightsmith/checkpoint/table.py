"""The table of one weight file: which tensors it holds, and where."""

from typing import Final

from weightsmith import fs
from weightsmith.formats import safetensors_header, torch_zip
from weightsmith.formats.tensors import StoredTensor

SAFETENSORS: Final = ".safetensors"
"""The suffix of safetensors files; files with any other are read as torch's."""


def read_table(
    file: fs.Readable, notes: list[str], *, far: bool = False
) -> tuple[tuple[StoredTensor, ...], bytes]:
    """The tensors of one file and the bytes that identify its table; `far` as torch_zip has it."""
    if file.path.suffix == SAFETENSORS:
        header, raw = safetensors_header.read_header(file)
        return header.tensors, raw
    table = torch_zip.read_torch_table(file, far=far)
    if table.left:
        notes.append(f"{file.path.name}: beside the model, not used: " + ", ".join(table.left))
    return table.tensors, table.directory

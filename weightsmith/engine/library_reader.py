"""A second opinion on what we wrote: the safetensors library opens each file too.

Our own reader checks more than the library does; but a file that only we could read would be no
safetensors file, and a mistake that our reader and writer share would pass both.
"""

from pathlib import Path
from typing import Final

from weightsmith import fs
from weightsmith.errors import VerificationFailed
from weightsmith.formats.safetensors_header import read_header

_KNOWN: Final = frozenset(
    {"BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "I16", "U16", "F16", "BF16"}
    | {"I32", "U32", "F32", "F64", "I64", "U64"}
)
"""The dtypes that every version of the library knows which the package allows."""


def require_readable(path: Path) -> str:
    """Open a safetensors file with the library, and compare what its header tells with what it
    tells us; no values are read.

    Returns why that could not be done, a sentence, and nothing where it was: a library that is
    older than a dtype refuses the whole file.
    Raises: VerificationFailed.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        return f"{path.name} was not opened with the safetensors library, which is not installed"
    ours = {each.info.name: each.info for each in read_header(fs.open_for_reading(path))[0].tensors}
    try:
        with safe_open(path, "np") as file:
            names = {*file.keys()}
            for name in names & ours.keys():
                found = file.get_slice(name)
                if tuple(found.get_shape()) != ours[name].shape:
                    reason = f"the safetensors library reads another shape of {name}"
                    raise VerificationFailed(file=path, reason=reason)
    except SafetensorError as error:
        if strange := sorted({info.dtype for info in ours.values()} - _KNOWN):
            return f"{path.name} was not opened with the safetensors library: {', '.join(strange)}"
        reason = f"the safetensors library refuses it: {error}"
        raise VerificationFailed(file=path, reason=reason) from error
    if names != ours.keys():
        reason = "the safetensors library reads other names"
        raise VerificationFailed(file=path, reason=reason)
    return ""

"""The payloads that were frozen when their format was made."""

import json
from typing import Final

from tests.support.exact_payloads import Content
from tests.support.paths import TESTS
from weightsmith.formats.tensors import TensorInfo

_FOLDERS: Final = [TESTS / "codecs" / "exact" / name for name in ("frozen", "frozen_coded")]
"""One for each version of the format, whose cases that version made."""
_FOLDER_OF: Final = {
    name: folder for folder in _FOLDERS for name in json.loads((folder / "cases.json").read_bytes())
}
CASES: Final = {
    name: case
    for folder in _FOLDERS
    for name, case in json.loads((folder / "cases.json").read_bytes()).items()
}
"""By name: the dtypes and shapes of a base (or null) and a target, whose bytes lie beside it."""


def frozen(name: str) -> tuple[Content | None, TensorInfo, bytes, bytes]:
    """Base, target, the target's bytes, and the payload that stood for it when it was frozen."""
    infos = {
        role: TensorInfo("w", dtype, tuple(shape)) for role, (dtype, shape) in CASES[name].items()
    }
    data = {path.suffix[1:]: path.read_bytes() for path in _FOLDER_OF[name].glob(f"{name}.*")}
    base = Content(infos["base"], data["base"]) if "base" in infos else None
    return base, infos["target"], data["target"], data["payload"]

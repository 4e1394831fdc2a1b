"""The payloads that were frozen when their format was made."""

import json
from typing import Final

from tests.support.exact_payloads import Content
from tests.support.paths import TESTS
from weightsmith.formats.tensors import TensorInfo

FROZEN: Final = TESTS / "codecs" / "exact" / "frozen"
CASES: Final = json.loads((FROZEN / "cases.json").read_bytes())
"""By name: the dtypes and shapes of a base (or null) and a target, whose bytes lie beside it."""


def frozen(name: str) -> tuple[Content | None, TensorInfo, bytes, bytes]:
    """Base, target, the target's bytes, and the payload that stood for it when it was frozen."""
    infos = {
        role: TensorInfo("w", dtype, tuple(shape)) for role, (dtype, shape) in CASES[name].items()
    }
    data = {path.suffix[1:]: path.read_bytes() for path in FROZEN.glob(f"{name}.*")}
    base = Content(infos["base"], data["base"]) if "base" in infos else None
    return base, infos["target"], data["target"], data["payload"]

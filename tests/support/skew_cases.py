"""The vectors of version skew: folders, and what the original tokenizers make of texts."""

import json
from pathlib import Path
from typing import Any, Final

from tests.support.paths import VECTORS
from tests.support.tokenizer_folders import Files
from weightsmith.catalogue.repairs import load_repairs

SKEW: Final = VECTORS / "skew"
ORACLES: Final[dict[str, dict[str, Any]]] = {
    path.parent.name: json.loads(path.read_bytes()) for path in sorted(SKEW.glob("*/oracle.json"))
}


def folder_of(case: str) -> Path:
    """The folder of a case, as it was found."""
    return next(
        SKEW / case / name for name in ("broken", "folder") if (SKEW / case / name).is_dir()
    )


def files_of(case: str) -> Files:
    """Its files by name."""
    return {path.name: path.read_bytes() for path in folder_of(case).iterdir()}


def cases(*kinds: str) -> list[str]:
    """The cases of these kinds."""
    return [case for case, oracle in ORACLES.items() if oracle["kind"] in kinds]


def fault_of(case: str) -> str:
    """The fault that a case is of: its name, without a number."""
    known = {repair.id for repair in load_repairs()}
    return case if case in known else case.rpartition("-")[0]

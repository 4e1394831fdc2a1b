"""A tiny LLaMA that writes stories, a fine-tune of it that answers, its delta, and the result."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from weightsmith.repair.detect import diagnose, mend

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Models:
    """Folders that no test writes to."""

    base: Path
    tuned: Path
    delta: Path
    result: Path


Copy = Callable[[Path], Path]
Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def complete_tokenizer(folder: Path) -> None:
    """What fix-tokenizer does, without the proof in a child process."""
    files = {each.name: each.read_bytes() for each in folder.glob("*") if each.is_file()}
    for name, raw in mend(diagnose(files)).changed.items():
        (folder / name).write_bytes(raw)


def change_weights(folder: Path, change: Change) -> None:
    """Write the weights anew, changed, as another writer would: without a word in the manifest."""
    weights = {name: each.contiguous() for name, each in change(read(folder)).items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def read(folder: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = load_file(folder / WEIGHTS)
    return weights


def forget(folder: Path) -> None:
    """Remove the manifest, so that digests give nothing away."""
    (folder / "weightsmith.json").unlink()


def edit(path: Path, **values: Any) -> None:
    """Set keys of a JSON file; ``None`` removes one."""
    content = json.loads(path.read_bytes()) | values
    path.write_text(json.dumps({key: each for key, each in content.items() if each is not None}))

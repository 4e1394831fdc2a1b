"""A tiny LLaMA that writes stories, a fine-tune of it that answers, its delta, and the result."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests import tiny
from tests.engine.folders import copied
from tests.verify.freeze import FROZEN
from weightsmith.cli.main import run
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.repair.detect import diagnose, mend

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Models:
    """Folders that no test writes to."""

    base: Path
    tuned: Path
    delta: Path
    result: Path


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """The page without its line breaks."""
        return " ".join(self.out.split())

    def verdict(self, check: str) -> str:
        """Of a check on the page: pass, FAIL, not checked; empty where it was not made."""
        line = next((x for x in self.out.splitlines() if x.strip().startswith(f"{check}  ")), "")
        words = line.strip().removeprefix(check).strip()
        return next((v for v in ("pass", "FAIL", "not checked") if words.startswith(v)), "")


Weightsmith = Callable[..., Said]
Copy = Callable[[Path], Path]
Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small a model gains nothing from two, and on a busy machine waits."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    base, tuned = (copied(FROZEN / side, folder / side) for side in ("base", "tuned"))
    delta, result = folder / "vicuna-tiny-delta-v1.1", folder / "vicuna-tiny-v1.1"
    tiny.make_fastchat_delta(base, tuned, delta)
    for each in (base, tuned, delta):
        complete_tokenizer(each)
    apply_delta(base, delta, target=result)
    return Models(base, tuned, delta, result)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    """A copy of a folder, which a test may change."""
    return lambda folder: Path(shutil.copytree(folder, tmp_path / folder.name))


@pytest.fixture
def weightsmith(capfd: pytest.CaptureFixture[str]) -> Weightsmith:
    """Run a command line; what any library says is in what was said."""

    def go(*args: object) -> Said:
        capfd.readouterr()
        code = run([str(arg) for arg in args])
        return Said(code, *capfd.readouterr())

    return go


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

"""A tiny LLaMA that writes stories, a fine-tune of it that answers, its delta, and the result."""

import os
import shutil
from pathlib import Path

import pytest

from tests.ops.verify.freeze import FROZEN
from tests.support import tiny
from tests.support.folders import copied
from tests.support.story_models import Copy, Models, complete_tokenizer
from weightsmith.ops.apply_delta import apply_delta


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

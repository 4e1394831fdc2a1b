"""The demo works as a newcomer runs it, and fails aloud when it should."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.demo.demo", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )


@pytest.mark.slow
def test_the_result_answers_and_everything_is_kept_where_asked(tmp_path: Path) -> None:
    done = demo(str(tmp_path / "kept"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "result  With pleasure!" in done.stdout
    assert "All as it should be" in done.stdout
    kept = {path.name for path in (tmp_path / "kept").iterdir()}
    assert kept == {"base", "delta", "result", "tokenizer.model", "tuned"}


def test_an_existing_directory_is_left_alone(tmp_path: Path) -> None:
    done = demo(str(tmp_path))
    assert done.returncode == 1
    assert "exists: choose another directory" in done.stderr
    assert not [*tmp_path.iterdir()]


def test_a_result_with_one_wrong_weight_fails_the_demo() -> None:
    import torch

    from tests.demo.demo import compare

    base, delta = {"w": torch.ones(4).half()}, {"w": torch.full((4,), 0.5).half()}
    result = {"w": torch.tensor([1.5, 1.5, 1.5, 1.25]).half()}
    with pytest.raises(SystemExit, match="not base \\+ delta: w"):
        compare(base, delta, {"w": base["w"] + delta["w"]}, result)

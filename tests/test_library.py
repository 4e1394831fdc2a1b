"""The public functions, used as the docs use them."""

import subprocess
import sys
from pathlib import Path

import pytest

import weightsmith


def test_every_public_name_is_a_function_that_its_docstring_explains() -> None:
    for name in weightsmith.__all__:
        public = getattr(weightsmith, name)
        assert callable(public)
        assert public.__doc__


def test_the_tables_of_names_agree() -> None:
    assert sorted(weightsmith._PUBLIC) == sorted(weightsmith.__all__)
    with pytest.raises(AttributeError):
        _ = weightsmith.unheard_of


def test_importing_the_package_imports_nothing_of_it() -> None:
    code = (
        "import sys, weightsmith; print([m for m in sys.modules if m.startswith('weightsmith.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_delta_is_applied_and_the_result_verified(vectors: Path, tmp_path: Path) -> None:
    vicuna = vectors / "vicuna_v1_1"
    outcome = weightsmith.apply_delta(
        vicuna / "base", vicuna / "delta", target=tmp_path / "vicuna-7b"
    )
    report = weightsmith.verify(outcome.target)
    verdicts = {check.name: check.verdict for check in report.checks}
    assert verdicts["digests"] == "pass"
    model = weightsmith.open_checkpoint(outcome.target)
    assert len(model.tensors) == 21
    assert not weightsmith.diff(outcome.target, vicuna / "base").equal
    assert weightsmith.diff(outcome.target, outcome.target).equal

"""``weightsmith diff`` as a person and a script meet it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.command_line import Weightsmith
from tests.support.diff_models import base, tuned
from tests.support.folders import write_model
from weightsmith.cli.diff_text import format_relative, format_share


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return str(write_model(folder / "a", base())), str(write_model(folder / "b", tuned()))


def test_equal_models_end_with_0_and_others_with_1(
    weightsmith: Weightsmith, models: tuple[str, str]
) -> None:
    same = weightsmith("diff", models[0], models[0])
    assert same.code == 0
    assert f"→ {models[0]}  the same\n  tensors   35: 35 same\n" in same.out
    assert "changed by kind" not in same.out
    assert weightsmith("diff", *models).code == 1
    assert weightsmith("diff", models[0], "./nowhere").code == 3
    assert weightsmith("diff", models[0]).code == 2


def test_a_person_reads_totals_kinds_and_the_most_changed(
    weightsmith: Weightsmith, models: tuple[str, str]
) -> None:
    said = weightsmith("diff", *models)
    head, kinds, most = said.out.split("\n\n")
    assert "tensors   35: 13 same, 22 changed" in head
    assert "left out: 3 buffers that no loader reads" in head
    assert kinds.startswith("changed by kind\n  tensors  elements  relative  largest\n")
    assert "      2/3   16.67 %         –        –  byte\n" in kinds
    assert most.startswith("most changed\n")
    assert len(most.splitlines()) == 10
    assert "model.layers.0" not in said.out
    assert "all tensors" not in said.out


def test_verbose_lists_layers_and_every_tensor(
    weightsmith: Weightsmith, models: tuple[str, str]
) -> None:
    out = weightsmith("diff", *models, "-v").out
    listed = out.split("all tensors\n")[1].splitlines()[1:]
    assert len(listed) == 35
    assert "changed by layer" in out
    layers = out.split("changed by layer\n")[1].split("\n\n")[0].splitlines()[1:]
    assert [line.split()[0] for line in layers] == ["0/11", "11/11", "11/11"]


def test_tensors_that_have_no_partner_are_named(weightsmith: Weightsmith, tmp_path: Path) -> None:
    sides = {"grown": torch.ones(4, 2), "gone": torch.ones(1)}, {"grown": torch.ones(5, 2)}
    a, b = (write_model(tmp_path / str(n), side) for n, side in enumerate(sides))
    out = weightsmith("diff", str(a), str(b)).out
    assert "removed: gone, F32 [1]" in out
    assert "other shape: grown, F32 [4, 2] → F32 [5, 2], +1 rows" in out


def test_the_document_is_the_answer_and_nothing_else_is_said(
    weightsmith: Weightsmith, models: tuple[str, str]
) -> None:
    said = weightsmith("diff", *models, "--json")
    document = json.loads(said.out)
    assert (said.code, said.err) == (1, "")
    assert document["schema"] == "weightsmith.diff/1"
    assert (document["a"], document["b"], document["equal"]) == (*models, False)
    assert len(document["tensors"]) == 35


def test_quiet_says_one_word(weightsmith: Weightsmith, models: tuple[str, str]) -> None:
    assert weightsmith("diff", *models, "-q").out == "different\n"
    assert weightsmith("diff", models[1], models[1], "-q").out == "same\n"
    assert weightsmith("diff", *models, "-qq").out == ""


@pytest.mark.slow
def test_a_diff_needs_no_torch(models: tuple[str, str]) -> None:
    code = (
        "import sys; from weightsmith.cli.main import run;"
        f"run(['diff', *{models!r}, '-q']); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert {"different", "numpy"} <= modules
    assert not modules & {"torch", "transformers", "safetensors", "huggingface_hub"}


@pytest.mark.parametrize(
    "part,whole,text",
    [
        *((0, 7, "0 %"), (0, 0, "0 %"), (7, 7, "100 %"), (612, 1000, "61.20 %")),
        *((1, 10**9, "<0.01 %"), (10**9 - 1, 10**9, ">99.99 %")),
    ],
)
def test_all_and_nothing_are_said_of_all_and_nothing_only(part: int, whole: int, text: str) -> None:
    assert format_share(part, whole) == text


@pytest.mark.parametrize(
    "relative,text",
    [
        *((None, "–"), (0.0, "0 %"), (0.0123456, "1.23 %"), (0.09996, "10.0 %"), (1.0, "100 %")),
        *((0.00999949, "1.00 %"), (12.345, "1234 %"), (1.234e-5, "0.00123 %")),
        *((4.12e-9, "4.12e-07 %"), (3e9, "3.00e+11 %")),
    ],
)
def test_relative_changes_have_three_digits(relative: float | None, text: str) -> None:
    assert format_relative(relative) == text

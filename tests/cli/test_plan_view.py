"""The plan that every command shows before it writes a model, and the last line after it."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from tests.support.command_line import Weightsmith


@pytest.fixture
def base(vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model with twelve faults beside its weights, and a working directory to write in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    Path("base").symlink_to(vectors / "vicuna_v1_1" / "base")
    return "base"


def test_where_a_path_is_long_sizes_stand_below_it(
    weightsmith: Weightsmith, base: str, tmp_path: Path
) -> None:
    target = tmp_path / ("long-" * 12)
    lines = weightsmith("convert", base, str(target), "-n").out.split("\n")
    assert lines[1:5] == [
        "  source  base",
        "          23 tensors  102 kB  F16  2 .bin files",
        f"  target  {target}",
        "          21 tensors  102 kB  F16  safetensors, 1 shard",
    ]
    assert max(len(line) for line in lines if str(target) not in line) <= 80


@pytest.mark.parametrize(
    "dtype,rule", [("keep", "21 copied bit for bit"), ("float32", "21 cast to F32")]
)
def test_a_rule_is_told_with_its_dtype(
    weightsmith: Weightsmith, base: str, dtype: str, rule: str
) -> None:
    said = weightsmith("convert", base, "out", "-n", "--dtype", dtype)
    assert f"  {rule}\n" in said.out


def test_faults_that_stay_are_listed_and_with_v_all_of_them(
    weightsmith: Weightsmith, base: str
) -> None:
    short = weightsmith("convert", base, "out", "-n", "--no-repair").err
    assert "warning: 12 known faults of tokenizer and config files will stay\n" in short
    assert "  and 7 more (-v lists all)\n" in short
    whole = weightsmith("convert", base, "out", "-n", "-v", "--no-repair").err
    assert "more (-v" not in whole
    assert "  tokenizer.json: the file is missing\n" in whole
    (warning,) = json.loads(weightsmith("convert", base, "out", "-n", "--json", "--no-repair").out)[
        "warnings"
    ]
    assert warning.count(": ") > 12


def test_what_lies_beside_the_weights_is_cut_and_with_v_whole(
    weightsmith: Weightsmith, base: str
) -> None:
    Path("model").mkdir()
    for path in Path(base).iterdir():
        shutil.copy(path, "model")
    for number in range(8):
        (Path("model") / f"other-{number}.pt").touch()
    for command in (("convert", "model", "out", "-n"), ("inspect", "model"), ("verify", "model")):
        short = " ".join(weightsmith(*command).out.split())
        assert "other-4.pt, and 3 more (-v lists all)" in short
        assert "other-5.pt" not in short
        whole = " ".join(weightsmith(*command, "-v").out.split())
        assert "other-6.pt, other-7.pt" in whole
        assert "more (-v" not in whole


def test_the_last_line_is_a_command_that_mends_them(weightsmith: Weightsmith, base: str) -> None:
    said = weightsmith("convert", base, "its copy", "--no-repair")
    word, _, hint = said.err.splitlines()[-1].partition(": weightsmith ")
    assert word == "hint"
    assert weightsmith(*shlex.split(hint)).code == 0
    assert weightsmith("fix-tokenizer", "its copy", "--check").code == 0


def test_where_no_command_can_mend_them_none_is_named(
    weightsmith: Weightsmith, vectors: Path, tmp_path: Path
) -> None:
    source = vectors / "lora" / "plain_fp16" / "base"
    cure = "copy the model's own tokenizer there: tokenizer.model or tokenizer.json"
    wanted = f"hint: {cure}\n"
    assert weightsmith("convert", str(source), str(tmp_path / "out")).err.endswith(wanted)
    assert weightsmith("inspect", str(tmp_path / "out")).err == wanted

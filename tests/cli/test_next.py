"""What a command ends with: the one command that usually follows, ready to be copied."""

import json
import shlex
from pathlib import Path

import pytest

from tests.support.command_line import Weightsmith
from tests.support.folders import vicuna

ENDS = {
    "apply-delta --base base --delta delta --target 'a b'": "verify 'a b' --smoke",
    "make-delta --base base --target tuned --delta 'a b'": "verify 'a b' --base base",
    "make-delta --base base --target tuned --target other --delta 'a b'": "inspect 'a b'",
    "make-delta --base base --target tuned --delta weight_v000001 --format disk-delta": (
        "verify base+weight_v000001"
    ),
    "merge-lora --base base --lora lora -o 'a b'": "verify 'a b' --smoke",
    "extract-lora --base base --target tuned 'a b' --rank 2": "inspect 'a b'",
    "convert base 'a b' --dtype float32": "verify 'a b' --smoke",
    "combine '0.5*base + 0.5*tuned' 'a b'": "verify 'a b' --smoke",
    "combine '-1*base + 2*tuned' 'a b'": "verify 'a b' --smoke",
    "convert base 'a b' --save-plan 'a plan'": "run-plan 'a plan' --partition 1/4",
}


@pytest.fixture(autouse=True)
def here(vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    models = {name: vectors / "vicuna_v1_1" / name for name in ("base", "delta")}
    models["lora"] = vectors / "lora" / "plain_fp16" / "adapter"
    for name, folder in models.items():
        Path(name).symlink_to(folder)
    for name in ("tuned", "other"):
        vicuna(vectors, Path(name))


def in_words(command: str, here: Path) -> list[str]:
    """The words of a command, its paths as they are from `here`."""
    words = (word.replace(f"{here}/", "./") for word in shlex.split(command))
    return [word.replace("./", "") for word in words]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("command", ENDS)
def test_a_command_ends_in_the_one_that_follows(
    command: str, weightsmith: Weightsmith, tmp_path: Path
) -> None:
    said = weightsmith(*shlex.split(command))
    assert said.code == 0
    (hint,) = (line for line in said.err.splitlines() if line.startswith("hint: "))
    assert said.err.endswith(f"{hint}\n")
    following = hint.removeprefix("hint: ")
    assert in_words(following, tmp_path) == shlex.split(f"weightsmith {ENDS[command]}")
    document = json.loads(weightsmith(*shlex.split(command), "--json").out)
    assert in_words(document["next"], tmp_path) == in_words(following, tmp_path)
    assert str(tmp_path) not in following
    assert weightsmith(*shlex.split(command), "-q").err == ""
    if "--smoke" not in following:  # the smoke test has tests of its own
        assert weightsmith(*shlex.split(following)[1:]).code == 0


def test_where_faults_stay_what_mends_them_comes_first(weightsmith: Weightsmith) -> None:
    said = weightsmith("convert", "base", "out", "--no-repair")
    assert said.err.endswith("hint: weightsmith fix-tokenizer ./out\n")
    assert said.err.count("hint: ") == 1


def test_faults_of_a_chain_are_mended_in_what_is_made_of_it(weightsmith: Weightsmith) -> None:
    hint = "hint: to mend a copy of it: weightsmith convert base+delta DIR\n"
    assert weightsmith("inspect", "base+delta").err.endswith(hint)
    assert weightsmith("convert", "base+delta", "mended").code == 0
    assert "fault" not in weightsmith("inspect", "mended").out

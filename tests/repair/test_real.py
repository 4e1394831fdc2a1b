"""Real tokenizers in folders as people published them, through every command that reads one."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.support import real_files as real
from tests.support.ask import Answer, ask_tiktoken, ask_transformers, wrong
from tests.support.real_folders import (
    FOLDERS,
    chinese_model,
    sentencepiece_truth,
    texts,
    write_model,
)
from weightsmith.ops.fix_tokenizer import check_tokenizer, fix_tokenizer
from weightsmith.repair.tiktoken import PATTERN

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

CONTROL = {"<unk>": 0, "<s>": 1, "</s>": 2}
TEXTS = texts()
GOOD = {"llama-2", "llama-3", "mistral"}
"""Folders as their families publish them: nothing to mend."""
TIED = "chinese-llama"
"""Its pieces share the score 0, which no tokenizer.json can say: it is left alone, and said so."""
SPACED = {name for name in FOLDERS if name not in {TIED, "llama-3", "mistral"}}
"""Whose texts transformers 5 cuts in its own way where one begins with a space or follows a special
token: with Llama's class, whatever the files say.
"""

Folders = dict[str, Path]


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("real")
    return {name: write_model(root / name, files()) for name, files in FOLDERS.items()}


@pytest.fixture(scope="module")
def after(before: Folders, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("mended")
    copies = {name: Path(shutil.copytree(path, root / name)) for name, path in before.items()}
    for path in copies.values():
        fix_tokenizer(path)
    return copies


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[list[int]]]:
    """What sentencepiece, or tiktoken, makes of the texts."""
    models = dict.fromkeys(FOLDERS, real.llama_model())
    models |= {"mistral": real.mistral_model(), TIED: chinese_model()}
    told = {}
    for name, model in models.items():
        encode = sentencepiece_truth(model, CONTROL)
        told[name] = [encode(text) for text in TEXTS]
    ranks = tmp_path_factory.mktemp("tiktoken") / "tokenizer.model"
    ranks.write_bytes(real.llama_3_tiktoken())
    added = json.loads(real.llama_3_json())["added_tokens"]
    special = {token["content"]: token["id"] for token in added}
    python = real.python_with_transformers("4.46.3")
    return told | {"llama-3": ask_tiktoken(ranks, PATTERN, special, TEXTS, python=python)}


def told(
    answers: Mapping[Path, Answer], folders: Folders, truth: Mapping[str, list[list[int]]]
) -> dict[str, int | str]:
    return {name: wrong(answers[path], truth[name]) for name, path in folders.items()}


def command(*args: object) -> subprocess.CompletedProcess[str]:
    """A command line, as a user runs it."""
    line = [sys.executable, "-m", "weightsmith", *map(str, args)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_transformers_5_reads_every_mended_folder_as_its_truth(
    before: Folders, after: Folders, truth: Mapping[str, list[list[int]]]
) -> None:
    first = told(ask_transformers(list(before.values()), TEXTS), before, truth)
    then = told(ask_transformers(list(after.values()), TEXTS), after, truth)
    print("transformers 5 before", first, "after", then, sep="\n  ")
    assert {name: count for name, count in then.items() if name not in {*SPACED, TIED}} == {
        "llama-3": 0,
        "mistral": 0,
    }
    assert {then[name] for name in SPACED} == {then["llama-2"]}
    assert all(
        first[name] in {"RecursionError", 500} for name in ("decapoda", "yahma", "vicuna-v0")
    )


@pytest.mark.parametrize("slow", [False, True], ids=["fast", "slow"])
def test_transformers_4_46_reads_every_mended_folder_as_its_truth(
    before: Folders, after: Folders, truth: Mapping[str, list[list[int]]], slow: bool
) -> None:
    python = real.python_with_transformers("4.46.3")
    first = ask_transformers(list(before.values()), TEXTS, python=python, slow=slow)
    then = ask_transformers(list(after.values()), TEXTS, python=python, slow=slow)
    print("transformers 4.46 before", told(first, before, truth), sep="\n  ")
    assert told(then, after, truth) == dict.fromkeys(FOLDERS, 0)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_goes_through_every_command(before: Folders, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(before[name], tmp_path / name))
    faulty = name not in {*GOOD, TIED}
    check = command("fix-tokenizer", folder, "--check")
    assert check.returncode == (1 if faulty else 0), check.stdout
    assert ("not checked" in check.stdout) == (name == TIED)
    assert command("fix-tokenizer", folder).returncode == 0
    again = command("fix-tokenizer", folder, "--check")
    assert (again.returncode, "FAIL" in again.stdout) == (0, False)
    seen = json.loads(command("inspect", folder, "--json").stdout)
    assert seen["faults"] == []
    smoke = command("verify", folder, "--smoke", "--max-perplexity", "1e30", "--json")
    assert smoke.returncode in {0, 1}, smoke.stderr
    verdicts = {check["name"]: check["verdict"] for check in json.loads(smoke.stdout)["checks"]}
    assert verdicts["tokenizer"] == ("not checked" if name == TIED else "pass")
    converted = tmp_path / "converted"
    done = command("convert", before[name], converted)
    assert done.returncode == 0, done.stderr
    assert not check_tokenizer(folder).faults


def test_what_apply_delta_makes_has_a_mended_tokenizer(
    before: Folders, truth: Mapping[str, list[list[int]]], tmp_path: Path
) -> None:
    base = before["decapoda"]
    delta = Path(shutil.copytree(before["vicuna-v1.1"], tmp_path / "vicuna-tiny-delta-v1.1"))
    theirs, ours = (load_file(path / "model.safetensors") for path in (delta, base))
    difference = {key: 0.01 * value for key, value in theirs.items()}
    assert difference.keys() == ours.keys()
    save_file(difference, delta / "model.safetensors", {"format": "pt"})
    target = tmp_path / "vicuna"
    done = command("apply-delta", "--base", base, "--delta", delta, "--target", target)
    assert done.returncode == 0, done.stderr
    python = real.python_with_transformers("4.46.3")
    answer = ask_transformers([target], TEXTS, python=python)[target]
    assert wrong(answer, truth["vicuna-v1.1"]) == 0


def test_a_wrong_tokenizer_is_told_by_all_who_look(before: Folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(before["llama-2"], tmp_path / "swapped"))
    (folder / "tokenizer.model").unlink()
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(before["llama-3"] / name, folder / name)
    config = json.loads((folder / "config.json").read_bytes())
    for ids in ({"bos_token_id": 128000, "eos_token_id": 128001}, {}):
        (folder / "config.json").write_text(json.dumps(config | ids))
        found = [fault.id for fault in check_tokenizer(folder).faults]
        assert "vocab-size-small" in found
        for line in (["fix-tokenizer", folder, "--check"], ["verify", folder]):
            said = command(*line)
            assert (said.returncode, "vocab-size-small" in said.stdout) == (1, True)
        assert "vocab-size-small" in command("inspect", folder).stdout
        assert "the tokenizer more" in command("convert", folder, tmp_path / "x", "-n").stderr
        untouched = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert command("fix-tokenizer", folder).returncode == 0
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == untouched


def test_llama_3_with_the_ids_of_llama_2_is_mended(before: Folders, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(before["llama-3"], tmp_path / "ids"))
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | {"bos_token_id": 1, "eos_token_id": 2}))
    assert "[token-ids-wrong]" in command("verify", folder).stdout
    assert command("fix-tokenizer", folder).returncode == 0
    assert json.loads((folder / "config.json").read_bytes())["eos_token_id"] == 128001

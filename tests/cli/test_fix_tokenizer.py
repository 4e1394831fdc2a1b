"""``weightsmith fix-tokenizer`` as people and programs see it."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.command_line import Weightsmith
from weightsmith.ops import fix_tokenizer as ops


@pytest.fixture
def folder(tmp_path: Path, vectors: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model broken the decapoda way, in the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(vectors / "vicuna_v1_1" / "base", tmp_path / "llama-7b")
    return Path("llama-7b")


def test_check_repair_check_is_the_way_it_goes(weightsmith: Weightsmith, folder: Path) -> None:
    before = weightsmith("fix-tokenizer", str(folder), "--check")
    assert before.code == 1
    assert before.out.endswith("FAIL  llama-7b\n      12 faults, 1 remark\n")
    evidence = 'tokenizer_class is "LLaMATokenizer", it should be "LlamaTokenizer"'
    assert evidence in " ".join(before.out.split())
    assert before.err == "hint: weightsmith fix-tokenizer llama-7b\n"

    repair = weightsmith("fix-tokenizer", str(folder))
    assert repair.code == 0
    assert repair.out.startswith("done  llama-7b\n      12 faults repaired in 5 files\n")
    assert "tokenizers gives sentencepiece's ids for 38 of 38 test texts\n" in repair.out
    assert "the others start with a space" in repair.out
    assert '-  "eos_token": "",\n+  "bos_token": "<s>",\n+  "eos_token": "</s>",' in repair.err
    assert "+++ tokenizer.json  built, 11.1 kB, 59 merges" in repair.err

    after = weightsmith("fix-tokenizer", str(folder), "--check")
    assert (after.code, after.err) == (0, "")
    assert after.out.endswith("pass  llama-7b\n      no faults, 1 remark\n")
    again = weightsmith("fix-tokenizer", str(folder))
    assert (again.code, again.out) == (0, "done  llama-7b\n      nothing to repair\n")


def test_the_diff_is_coloured_on_a_terminal(
    weightsmith: Weightsmith, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR")
    said = weightsmith("fix-tokenizer", str(folder), "--dry-run", terminal=True)
    assert '\x1b[1;31m-  "unk_token": ""\x1b[0m\n' in said.out
    assert '\x1b[32m+  "unk_token": "<unk>",\x1b[0m\n' in said.out


def test_a_dry_run_shows_the_diff_and_writes_nothing(
    weightsmith: Weightsmith, folder: Path
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    said = weightsmith("fix-tokenizer", str(folder), "-n")
    assert said.code == 0
    assert "dry run: nothing was written" in said.out
    assert '+  "bos_token_id": 1,' in said.out
    assert said.err == ""
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_working_directory_is_the_default(
    weightsmith: Weightsmith, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    said = weightsmith("fix_tokenizer", "--check", "-q")
    assert (said.code, said.out, said.err) == (1, ".\n", "")


def test_json_names_each_fault_with_its_symptom_and_references(
    weightsmith: Weightsmith, folder: Path
) -> None:
    said = weightsmith("fix-tokenizer", str(folder), "--check", "--json")
    document = json.loads(said.out)
    assert (said.code, said.err) == (1, "")
    assert (document["schema"], document["folder"]) == ("weightsmith.fix-tokenizer/1", "llama-7b")
    fault = next(f for f in document["faults"] if f["id"] == "special-tokens-blank")
    assert fault["file"] == "tokenizer_config.json"
    assert fault["curable"] is True
    assert "RecursionError" in fault["symptom"]
    assert "lm-sys/FastChat#408" in fault["references"]


def test_verbose_explains_symptoms(weightsmith: Weightsmith, folder: Path) -> None:
    said = weightsmith("fix-tokenizer", str(folder), "--check", "-v")
    assert "special-tokens-blank: `RecursionError" in said.err


def test_a_local_copy_is_where_the_result_is(
    weightsmith: Weightsmith, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops, "_proved_by_readers", lambda plan, work: None)
    said = weightsmith("fix-tokenizer", str(folder), "--local-copy", "copy", "-q")
    assert (said.code, said.out) == (0, "copy\n")
    assert Path("copy/tokenizer.json").is_file()
    assert not (folder / "tokenizer.json").exists()


def test_a_folder_in_a_cache_is_refused_with_the_way_out(
    weightsmith: Weightsmith, folder: Path
) -> None:
    cached = Path("snapshot")
    cached.mkdir()
    for path in folder.iterdir():
        (cached / path.name).symlink_to(path.resolve())
    said = weightsmith("fix-tokenizer", "snapshot")
    assert said.code == 9
    assert "[behind-link]" in said.err
    assert said.err.endswith("weightsmith fix-tokenizer snapshot --local-copy DIR\n")


def test_what_cannot_be_repaired_fails_the_check_and_stops_the_repair(
    weightsmith: Weightsmith, folder: Path
) -> None:
    (folder / "tokenizer.model").write_bytes(
        b"version https://git-lfs.github.com/spec/v1\nsize 499723\n"
    )
    check = weightsmith("fix-tokenizer", str(folder), "--check")
    assert check.code == 1
    assert "tokenizer-model-damaged" in check.out
    assert check.err == ""
    repair = weightsmith("fix-tokenizer", str(folder))
    assert repair.code == 6
    assert "hint: in that directory: git lfs pull" in repair.err


def test_a_folder_without_a_tokenizer_is_named(weightsmith: Weightsmith, tmp_path: Path) -> None:
    said = weightsmith("fix-tokenizer", str(tmp_path), "--check")
    assert said.code == 3
    assert "[no-tokenizer]" in said.err


def skewed(case: str, vectors: Path) -> Path:
    return Path(shutil.copytree(vectors / "skew" / case / "broken", case))


def test_a_report_begins_with_wrong_ids_and_shows_a_text_that_gets_them(
    weightsmith: Weightsmith, tmp_path: Path, vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = skewed("bos-rule-lost", vectors)
    said = weightsmith("fix-tokenizer", str(folder), "--check")
    assert said.code == 1
    places = [
        said.out.index(text)
        for text in (
            "wrong token ids, without an error\n  bos-rule-lost",
            "transformers-4: adds BOS to every text, without a warning",
            "'' gives [1] and should give []",
            "other wrong results, without an error\n",
            "published so by its makers: left as it is\n  merges-pairs",
            "FAIL  bos-rule-lost\n      3 faults, 1 remark\n",
        )
    ]
    assert places == sorted(places)
    document = json.loads(weightsmith("fix-tokenizer", str(folder), "--check", "--json").out)
    fault = next(each for each in document["faults"] if each["id"] == "bos-rule-lost")
    assert (fault["verdict"], fault["severity"]) == ("fault", "ids")
    assert fault["example"]["ids"] != fault["example"]["right"]
    assert [each["id"] for each in document["remarks"]] == ["merges-pairs"]


def test_for_whom_and_the_exact_class_are_asked_for(
    weightsmith: Weightsmith, tmp_path: Path, vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = skewed("leading-space-v5", vectors)
    assert weightsmith("fix-tokenizer", str(folder), "--check").code == 0
    asked = weightsmith("fix-tokenizer", str(folder), "--check", "--exact-class")
    assert asked.code == 1
    assert asked.err == "hint: weightsmith fix-tokenizer leading-space-v5 --exact-class\n"
    five = weightsmith("fix-tokenizer", str(folder), "--check", "--for", "transformers-5")
    assert five.code == 1
    assert weightsmith("fix-tokenizer", str(folder), "--check", "--for", "llama.cpp").code == 0
    done = weightsmith("fix-tokenizer", str(folder), "--exact-class")
    assert "gives sentencepiece's ids for 38 of 38 test texts" in done.out


def test_a_tokenizer_that_nobody_looked_at_is_not_checked(
    weightsmith: Weightsmith, tmp_path: Path, vectors: Path
) -> None:
    for name in ("tekken.json", "config.json"):
        shutil.copy(vectors / "skew" / "mistral-regex" / "broken" / name, tmp_path)
    said = weightsmith("fix-tokenizer", str(tmp_path), "--check")
    assert said.code == 0
    assert said.out.startswith("note: tekken.json is Mistral's own, and there is no tokenizer.json")
    assert "\nnot checked  " in said.out
    verdict = json.loads(weightsmith("fix-tokenizer", str(tmp_path), "--check", "--json").out)
    assert verdict["verdict"] == "not checked"


def test_a_folder_with_a_report_gets_its_other_repairs_and_still_fails(
    weightsmith: Weightsmith, tmp_path: Path, vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = skewed("rope-twice", vectors)
    said = weightsmith("fix-tokenizer", str(folder))
    assert "1 fault repaired in 1 file, 1 fault only reported" in said.out
    assert weightsmith("fix-tokenizer", str(folder), "--check").code == 1

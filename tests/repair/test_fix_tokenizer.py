"""Repairing a folder on disk: proved first, all or nothing, finished when run again."""

import itertools
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.families import byte_level
from tests.support.tokenizer_folders import Files, document, read, write
from weightsmith import fs
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.engine.manifest import Manifest, Sidecar, read_manifest
from weightsmith.errors import (
    BehindLink,
    FileTooLarge,
    JsonInvalid,
    LfsPointer,
    LinkBroken,
    NoTokenizer,
    SourceNotFound,
    TargetExists,
    TargetUnwritable,
    TokenizerInvalid,
    TokenizerTruncated,
    TokenizerUnproved,
    WeightsmithError,
)
from weightsmith.ops import fix_tokenizer as ops
from weightsmith.ops.fix_tokenizer import check_tokenizer, fix_tokenizer, plan_fix_tokenizer
from weightsmith.repair.contents import TOKENIZER_JSON
from weightsmith.smoke import prove_tokenizer
from weightsmith.smoke.tokenizer import ask_transformers

CHANGED = {
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.fixture
def folder(tmp_path: Path, vectors: Path) -> Path:
    """A model with weights, broken the decapoda way, free to change."""
    return Path(shutil.copytree(vectors / "vicuna_v1_1" / "base", tmp_path / "llama-7b"))


def tree(folder: Path) -> Files:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the second proof, which takes a second, where it is not what is tested."""
    monkeypatch.setattr(ops, "_proved_by_readers", lambda plan, work: None)


def test_a_published_folder_is_repaired_proved_and_kept_and_a_second_run_changes_nothing(
    folder: Path,
) -> None:
    published(folder)
    before = tree(folder)
    result = fix_tokenizer(folder)
    after = tree(folder)
    assert {change.file for change in result.changes} == CHANGED
    backups = {f"{name}.bak": before[name] for name in CHANGED & before.keys()}
    written = {name for name in after if after[name] != before.get(name)}
    assert written == {*CHANGED, *backups, "weightsmith.json"}
    assert {name: after[name] for name in backups} == backups
    assert stat.S_IMODE((folder / TOKENIZER_JSON).stat().st_mode) == 0o644

    assert [proof.reader.split()[0] for proof in result.proofs] == ["tokenizers", "transformers"]
    assert result.proofs[0].departures == ()

    assert vouched(folder)
    manifest = read_manifest(folder)
    assert manifest is not None
    assert manifest.repairs[:2] == ("architecture-misspelt", "token-ids-wrong")
    assert len(manifest.repairs) == len(set(manifest.repairs)) == 9

    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = fix_tokenizer(folder)
    assert (again.faults, again.changes, again.proofs) == ((), (), ())
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times
    assert check_tokenizer(folder).faults == ()


def test_looking_and_planning_write_nothing(folder: Path) -> None:
    before = tree(folder)
    assert len(check_tokenizer(folder).faults) == 12
    assert {change.file for change in plan_fix_tokenizer(folder).changes} == CHANGED
    assert tree(folder) == before


def test_the_number_of_rows_is_read_from_the_weights(tmp_path: Path, vectors: Path) -> None:
    folder = Path(shutil.copytree(vectors / "vicuna_v0" / "delta", tmp_path / "delta"))
    config = folder / "config.json"
    config.write_bytes(config.read_bytes().replace(b"401", b"400"))
    ids = [fault.id for fault in check_tokenizer(folder).faults]
    assert "vocab-size-wrong" in ids
    assert "added-tokens-missing" in ids


def test_a_folder_with_tokenizer_files_only_is_repaired(
    tmp_path: Path, small_model: bytes, without_transformers: None
) -> None:
    folder = write(tmp_path, {"tokenizer.model": small_model})
    result = fix_tokenizer(folder)
    assert (len(result.changes), result.notes) == (3, ())
    assert sorted(tree(folder)) == [
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
    ]


def test_unreadable_weights_are_no_reason_to_stop(folder: Path) -> None:
    (folder / "pytorch_model-00001-of-00002.bin").write_bytes(b"")
    diagnosis = check_tokenizer(folder)
    assert len(diagnosis.faults) == 12
    assert "rows are taken from config.json" in diagnosis.notes[0]


# --- other families -------------------------------------------------------------------------------


INPUTS = ["input_ids", "attention_mask"]
FAMILIES: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "gpt2": (
        {"architectures": ["GPT2LMHeadModel"], "bos_token_id": 0, "eos_token_id": 0},
        {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|endoftext|>", "add_bos_token": False},
    ),
    "falcon": (
        {"architectures": ["FalconForCausalLM"], "bos_token_id": 0, "eos_token_id": 0},
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|endoftext|>",
            "model_input_names": INPUTS,
        },
    ),
    "llama": (
        {"architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": [0, 2]},
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|begin|>",
            "model_input_names": INPUTS,
        },
    ),
    # Its own class stands for another split rule, but transformers takes the generic one for it.
    "starcoder": (
        {"architectures": ["GPTBigCodeForCausalLM"], "model_type": "gpt_bigcode"},
        {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>"},
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_byte_level_folders_pass_untouched(tmp_path: Path, family: str) -> None:
    tokenizer = byte_level(["<|endoftext|>", "<|begin|>", "<|im_end|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    tokenizer.model.save(str(tmp_path))
    config, settings = FAMILIES[family]
    config = {"model_type": family, "vocab_size": tokenizer.get_vocab_size(), **config}
    generation = {"do_sample": True, "temperature": 0.6, "top_p": 0.9}
    write(
        tmp_path,
        {
            "config.json": document(config),
            "generation_config.json": document(generation),
            "tokenizer_config.json": document(settings),
            "special_tokens_map.json": document({"eos_token": "<|endoftext|>"}),
        },
    )
    before = tree(tmp_path)
    result = fix_tokenizer(tmp_path)
    assert (result.faults, result.changes) == ((), ())
    assert check_tokenizer(tmp_path).faults == ()
    assert tree(tmp_path) == before


# --- when something is in the way -----------------------------------------------------------------


def test_a_repair_that_transformers_reads_otherwise_is_refused_and_nothing_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan spoiled on its way to transformers, which then really gives other ids."""
    plan = plan_fix_tokenizer(folder)
    before = tree(folder)

    def ask_about_spoiled(files: Files, texts: list[str], scratch: Path) -> object:
        spoiled = files["tokenizer_config.json"]
        spoiled = spoiled.replace(b"LlamaTokenizer", b"LLaMATokenizer").replace(b'"<s>"', b'"x"')
        return ask_transformers({**files, "tokenizer_config.json": spoiled}, texts, scratch)

    monkeypatch.setattr(prove_tokenizer, "ask_transformers", ask_about_spoiled)
    with pytest.raises(TokenizerUnproved, match=r"transformers"):
        ops.carry_out(plan)
    assert tree(folder) == before


def test_nothing_is_written_through_a_link(tmp_path: Path, folder: Path) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for path in folder.iterdir():
        (snapshot / path.name).symlink_to(path)
    before = tree(folder)
    with pytest.raises(BehindLink) as caught:
        fix_tokenizer(snapshot)
    assert f"fix-tokenizer {snapshot} --local-copy DIR" in caught.value.hint_text
    assert tree(folder) == before
    assert sorted(p.name for p in snapshot.iterdir()) == sorted(before)


def test_a_local_copy_holds_repaired_real_files_and_leaves_the_folder_alone(
    tmp_path: Path, folder: Path, without_transformers: None
) -> None:
    (folder / "README.md").write_bytes(b"# Model\n")
    before = tree(folder)
    result = fix_tokenizer(folder, local_copy=tmp_path / "copy")
    assert result.folder == tmp_path / "copy"
    assert tree(folder) == before
    assert tree(tmp_path / "copy").keys() == CHANGED | {"README.md", "tokenizer.model"}
    assert check_tokenizer(tmp_path / "copy").faults == ()


def test_a_local_copy_that_is_there_is_already_done_and_any_other_directory_is_in_the_way(
    tmp_path: Path, folder: Path, without_transformers: None
) -> None:
    """As of a run that was killed after it had given the copy its name."""
    copy = tmp_path / "copy"
    (folder / "README.md").write_bytes(b"# Model\n")
    fix_tokenizer(folder, local_copy=copy)
    before = tree(copy)
    again = fix_tokenizer(folder, local_copy=copy)
    assert (again.already_done, again.folder) == (True, copy)
    assert tree(copy) == before
    (copy / "README.md").write_bytes(b"# Another\n")
    with pytest.raises(TargetExists):
        fix_tokenizer(folder, local_copy=copy)
    (copy / "README.md").write_bytes(b"# Model\n")
    (copy / "mine.txt").write_bytes(b"mine")
    with pytest.raises(TargetExists):
        fix_tokenizer(folder, local_copy=copy)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named_before_the_proof(folder: Path) -> None:
    folder.chmod(0o555)
    with pytest.raises(TargetUnwritable, match="read-only"):
        fix_tokenizer(folder)
    folder.chmod(0o755)


# --- stopped half-way -----------------------------------------------------------------------------


class Stopped(BaseException):
    """The process ends here."""


def stopping_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    count = iter(range(step))

    def stop() -> None:
        if next(count, None) is None:
            raise Stopped

    monkeypatch.setattr(fs, "on_durable_step", stop)


def published(folder: Path) -> Manifest:
    """A manifest that vouches for the folder's files as they are."""
    sidecars = {n: Sidecar(len(raw), bytes_digest(raw)) for n, raw in read(folder).items()}
    manifest = Manifest("convert", "", "", "", inputs={}, files={}, sidecars=sidecars, tensors={})
    (folder / "weightsmith.json").write_bytes(manifest.to_bytes())
    return manifest


def vouched(folder: Path) -> bool:
    """Whether the manifest still speaks of the files that are there."""
    manifest = read_manifest(folder)
    assert manifest is not None
    digests = {name: bytes_digest(raw) for name, raw in read(folder).items()}
    return digests == {name: each.digest for name, each in manifest.sidecars.items()}


def test_a_repair_stopped_at_any_step_is_finished_by_running_it_again(
    tmp_path: Path, broken: Files, monkeypatch: pytest.MonkeyPatch, without_transformers: None
) -> None:
    folder = write(tmp_path / "folder", broken)
    published(folder)
    whole = Path(shutil.copytree(folder, tmp_path / "whole"))
    fix_tokenizer(whole)
    assert vouched(whole)
    for step in itertools.count():
        copy = Path(shutil.copytree(folder, tmp_path / f"copy-{step}"))
        with monkeypatch.context() as patch:
            stopping_at(step, patch)
            try:
                fix_tokenizer(copy)
            except Stopped:
                pass
            else:
                break
        fix_tokenizer(copy)
        assert tree(copy) == tree(whole)
    assert step > 20


KILLED = """
import os, sys
from weightsmith import fs
from weightsmith.cli.main import run
fs.on_durable_step = lambda: os._exit(99)
run(["fix-tokenizer", sys.argv[1]])
"""


@pytest.mark.slow
def test_a_killed_repair_leaves_nothing_in_the_temporary_directory(
    tmp_path: Path, folder: Path, without_transformers: None
) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    before = tree(folder)
    line = [sys.executable, "-c", KILLED, str(folder)]
    done = subprocess.run(line, env=os.environ | {"TMPDIR": str(scratch)}, check=False)
    assert done.returncode == 99
    assert list(scratch.iterdir()) == []
    assert {name: tree(folder)[name] for name in before} == before
    fix_tokenizer(folder)
    assert not [name for name in tree(folder) if ".weightsmith-" in name]


def test_what_a_run_left_that_was_killed_at_the_very_end_is_deleted_by_the_next(
    folder: Path, without_transformers: None
) -> None:
    fix_tokenizer(folder)
    done = tree(folder)
    (folder / ".repair.weightsmith-0123456789abcdef" / "after").mkdir(parents=True)
    fix_tokenizer(folder)
    assert tree(folder) == done


def test_a_manifest_of_files_that_somebody_else_changed_is_left_alone(
    folder: Path, without_transformers: None
) -> None:
    manifest = published(folder)
    (folder / "generation_config.json").write_bytes(document({"max_length": 7}))
    fix_tokenizer(folder)
    assert read_manifest(folder) == manifest


def test_a_manifest_names_what_was_repaired_and_not_what_is_only_reported(
    folder: Path, without_transformers: None
) -> None:
    (folder / "chat_template.jinja").write_text("one")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_bytes(document(settings | {"chat_template": "other"}))
    published(folder)
    assert "template-twice" in {fault.id for fault in check_tokenizer(folder).faults}
    repaired = dict.fromkeys(fault.id for fault in fix_tokenizer(folder).faults)
    manifest = read_manifest(folder)
    assert manifest is not None
    assert manifest.repairs == tuple(repaired)
    assert "template-twice" not in repaired
    raw = (folder / "weightsmith.json").read_bytes()
    fix_tokenizer(folder)
    assert (folder / "weightsmith.json").read_bytes() == raw


def test_a_manifest_stays_as_it_is_where_nothing_is_repaired(
    folder: Path, without_transformers: None
) -> None:
    fix_tokenizer(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "chat_template.jinja").write_text("one")
    (folder / "tokenizer_config.json").write_bytes(document(settings | {"chat_template": "other"}))
    manifest = published(folder)
    fix_tokenizer(folder)
    assert read_manifest(folder) == manifest


# --- bad input ------------------------------------------------------------------------------------


def test_no_folder_and_no_tokenizer_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound):
        fix_tokenizer(tmp_path / "nowhere")
    (tmp_path / "config.json").write_bytes(b"{}")
    with pytest.raises(NoTokenizer, match=str(tmp_path)):
        fix_tokenizer(tmp_path)


def lengthened(path: Path, nbytes: int) -> None:
    with path.open("r+b") as file:
        file.truncate(nbytes)


def test_bad_files_are_named_and_the_folder_stays_as_it_was(folder: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\nsize 499723\n"
    model = (folder / "tokenizer.model").read_bytes()
    cases: list[tuple[str, bytes, type[WeightsmithError]]] = [
        ("tokenizer.model", pointer, LfsPointer),
        ("tokenizer.model", model[:3000], TokenizerTruncated),
        ("tokenizer.model", b"<just some text>", TokenizerInvalid),
        ("tokenizer_config.json", b"{", JsonInvalid),
        ("special_tokens_map.json", b'{"a": 1, "a": 1}', JsonInvalid),
        ("generation_config.json", b"\xef\xbb\xbf{}", JsonInvalid),
    ]
    for name, raw, error in cases:
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes(raw)
        before = tree(folder)
        with pytest.raises(error, match=name):
            fix_tokenizer(folder)
        assert tree(folder) == before
        (folder / name).write_bytes(kept)


def test_a_hundred_megabytes_of_json_are_refused_unread(folder: Path) -> None:
    lengthened(folder / "tokenizer_config.json", 100_000_000)
    with pytest.raises(FileTooLarge, match="100000000 bytes, more than the 64000000"):
        fix_tokenizer(folder)


def test_a_link_that_leads_nowhere_is_not_taken_for_no_file(folder: Path) -> None:
    (folder / "special_tokens_map.json").unlink()
    (folder / "special_tokens_map.json").symlink_to("nowhere")
    with pytest.raises(LinkBroken, match="nowhere"):
        check_tokenizer(folder)

"""Repairs in folders where something is in the way: nothing is lost, nothing done by halves."""

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.tokenizer_folders import document, read
from weightsmith.checkpoint.digest import bytes_digest
from weightsmith.engine.manifest import Manifest, Sidecar, read_manifest
from weightsmith.errors import (
    BehindLink,
    InputChanged,
    JsonInvalid,
    NotRegularFile,
    TargetExists,
    TargetUnwritable,
    WeightsmithError,
)
from weightsmith.ops import fix_tokenizer as ops
from weightsmith.ops.fix_tokenizer import check_tokenizer, fix_tokenizer

is_root = hasattr(os, "geteuid") and os.geteuid() == 0
as_root = pytest.mark.skipif(not is_root, reason="only root may give files to others")


@pytest.fixture(autouse=True)
def without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the second proof, which takes a second, and is not what is tested here."""
    monkeypatch.setattr(ops, "_proved_by_readers", lambda plan, work: None)


@pytest.fixture
def folder(tmp_path: Path, vectors: Path) -> Path:
    """Tokenizer and config files broken the decapoda way, free to change."""
    made = tmp_path / "llama-7b"
    made.mkdir()
    for name in read(vectors / "vicuna_v1_1" / "base"):
        shutil.copy(vectors / "vicuna_v1_1" / "base" / name, made)
    return made


def tree(folder: Path) -> dict[str, object]:
    """Content of files, targets of links, by name."""
    return {
        path.relative_to(folder).as_posix(): path.readlink()
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


def occupied_by_a_link(backup: Path) -> None:
    backup.symlink_to("nowhere")


def occupied_by_another_file(backup: Path) -> None:
    backup.write_bytes(b"mine")


OCCUPIED: list[Callable[[Path], None]] = [
    Path.mkdir,
    occupied_by_a_link,
    occupied_by_another_file,
]


@pytest.mark.parametrize("occupy", OCCUPIED)
def test_an_old_content_is_kept_whatever_lies_under_the_name_of_its_copy(
    folder: Path, occupy: Callable[[Path], None]
) -> None:
    old = (folder / "config.json").read_bytes()
    occupy(folder / "config.json.bak")
    before = tree(folder)
    fix_tokenizer(folder)
    assert (folder / "config.json").read_bytes() != old
    assert (folder / "config.json.bak.2").read_bytes() == old
    assert tree(folder)["config.json.bak"] == before["config.json.bak"]
    done = tree(folder)
    fix_tokenizer(folder)
    assert tree(folder) == done


def test_what_was_edited_after_a_repair_is_kept_by_the_next_one_too(folder: Path) -> None:
    first = (folder / "config.json").read_bytes()
    fix_tokenizer(folder)
    edited = document(json.loads(first) | {"mine": 1})
    (folder / "config.json").write_bytes(edited)
    fix_tokenizer(folder)
    assert (folder / "config.json.bak").read_bytes() == first
    assert (folder / "config.json.bak.2").read_bytes() == edited
    (folder / "config.json").write_bytes(first)
    fix_tokenizer(folder)
    assert not (folder / "config.json.bak.3").exists()


def test_a_manifest_is_brought_up_to_date_by_whichever_copy_it_vouches_for(folder: Path) -> None:
    sidecars = {n: Sidecar(len(raw), bytes_digest(raw)) for n, raw in read(folder).items()}
    manifest = Manifest("convert", "", "", "", inputs={}, files={}, sidecars=sidecars, tensors={})
    (folder / "weightsmith.json").write_bytes(manifest.to_bytes())
    (folder / "config.json.bak").write_bytes(b"mine")
    fix_tokenizer(folder)
    updated = read_manifest(folder)
    assert updated is not None
    assert updated.repairs
    digests = {name: bytes_digest(raw) for name, raw in read(folder).items()}
    assert digests == {name: each.digest for name, each in updated.sidecars.items()}


def broken_manifest(path: Path) -> None:
    path.write_bytes(b'{"a": 1}')


def linked_manifest(path: Path) -> None:
    path.with_name("elsewhere.json").write_bytes(
        Manifest("convert", "", "", "", {}, {}, {}, {}).to_bytes()
    )
    path.symlink_to("elsewhere.json")


@pytest.mark.parametrize(
    "spoil, error",
    [(broken_manifest, JsonInvalid), (Path.mkdir, NotRegularFile), (linked_manifest, BehindLink)],
)
def test_a_manifest_that_cannot_be_brought_up_to_date_is_told_before_anything_changes(
    folder: Path, spoil: Callable[[Path], None], error: type[WeightsmithError]
) -> None:
    spoil(folder / "weightsmith.json")
    before = tree(folder)
    with pytest.raises(error, match=r"weightsmith\.json"):
        fix_tokenizer(folder)
    assert tree(folder) == before


@pytest.mark.parametrize("name", ["tokenizer.model", "generation_config.json", "merges.txt"])
@pytest.mark.parametrize("copied", [False, True])
def test_a_file_that_changes_between_reading_and_writing_stops_the_repair_whole(
    folder: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, *, copied: bool
) -> None:
    """Also one that is not to be replaced, and one that was not there."""

    def meanwhile(plan: object, work: Path) -> None:
        (folder / name).write_bytes(b"changed")

    monkeypatch.setattr(ops, "_proved_by_readers", meanwhile)
    before = tree(folder)
    with pytest.raises(InputChanged, match=name):
        fix_tokenizer(folder, local_copy=tmp_path / "copy" if copied else None)
    assert tree(folder) == before | {name: b"changed"}
    assert [path.name for path in tmp_path.iterdir()] == ["llama-7b"]


def test_a_copy_of_a_read_only_folder_is_made_and_can_be_written_to(
    folder: Path, tmp_path: Path
) -> None:
    folder.chmod(0o555)
    try:
        fix_tokenizer(folder, local_copy=tmp_path / "copy")
    finally:
        folder.chmod(0o755)
    assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o755
    assert check_tokenizer(tmp_path / "copy").faults == ()


def test_a_copy_over_the_folder_itself_is_refused(folder: Path) -> None:
    before = tree(folder)
    for same in (folder, folder / "."):
        with pytest.raises(TargetExists):
            fix_tokenizer(folder, local_copy=same)
    assert tree(folder) == before


def test_modes_are_kept_and_what_is_new_is_no_more_open_than_the_least_open(folder: Path) -> None:
    for path in folder.iterdir():
        path.chmod(0o640)
    (folder / "config.json").chmod(0o444)
    fix_tokenizer(folder)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes.pop("config.json") == modes.pop("config.json.bak") == 0o444
    assert modes.pop("tokenizer.json") == 0o440
    assert {*modes.values()} == {0o640}


@as_root
def test_what_is_new_in_a_folder_of_somebody_else_is_theirs(folder: Path) -> None:
    for path in (folder, *folder.iterdir()):
        os.chown(path, 4321, 4321)
    fix_tokenizer(folder)
    assert {path.stat().st_uid for path in folder.iterdir()} == {4321}


@as_root
def test_a_file_of_somebody_else_is_not_taken_from_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError

    os.chown(folder / "config.json", 4321, 4321)
    before = tree(folder)
    monkeypatch.setattr(os, "fchown", forbidden)
    with pytest.raises(TargetUnwritable, match="belongs to another user") as caught:
        fix_tokenizer(folder)
    assert "elsewhere" in caught.value.hint_text  # not: another directory for the output
    assert tree(folder) == before


@pytest.mark.skipif(is_root, reason="root may read everything")
def test_a_folder_that_may_not_be_listed_is_told_as_that(folder: Path) -> None:
    folder.chmod(0o311)
    try:
        with pytest.raises(WeightsmithError) as caught:
            check_tokenizer(folder)
    finally:
        folder.chmod(0o755)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "raw",
    [
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        '{"a": 1}'.encode("utf-16-le"),
        b'{"a": "\xe9"}',
        b'{"a": 1, "a": 2}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": NaN}',
        b'{"a": 1e400}',
        b'{"a": "\\ud800"}',
        b"",
        b"null",
        bytes(100),
    ],
)
def test_what_is_no_json_is_refused_and_nothing_is_changed(folder: Path, raw: bytes) -> None:
    (folder / "config.json").write_bytes(raw)
    before = tree(folder)
    with pytest.raises(JsonInvalid, match=r"config\.json"):
        fix_tokenizer(folder)
    assert tree(folder) == before


def test_line_ends_of_windows_and_large_integers_are_no_hindrance(folder: Path) -> None:
    said = json.loads((folder / "config.json").read_bytes()) | {"large": 10**40, "small": 0.1}
    raw = document(said).replace(b"\n", b"\r\n")
    (folder / "config.json").write_bytes(raw)
    fix_tokenizer(folder)
    after = json.loads((folder / "config.json").read_bytes())
    assert (after["large"], after["small"]) == (10**40, 0.1)
    assert (folder / "config.json.bak").read_bytes() == raw

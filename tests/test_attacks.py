"""The page of attacks names tests that are there; and attacks that need several parts."""

import copyreg
import io
import json
import pickle
import re
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from tests.support.command_line import Said
from tests.support.folders import write_model
from tests.support.paths import ROOT
from weightsmith.cli.main import run
from weightsmith.engine.manifest import read_manifest
from weightsmith.errors import DamagedInput
from weightsmith.formats.torch_zip import read_torch_table
from weightsmith.fs import open_for_reading
from weightsmith.ops.deltas.card import delta_card
from weightsmith.ops.make_delta import make_delta

PAGE = ROOT / "docs" / "explanation" / "attacks.md"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
NAME = "model.\x1b]0;owned\x07\n</script><img src=x onerror=alert(1)>|`x`.weight"
"""Drives a terminal, breaks a line, ends a script, and closes a cell and a word of Markdown."""
PROTOCOL = b"\x80\x04"


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def callers(command: str) -> dict[str, bytes]:
    """By opcode, the shortest pickle in which it runs a command, or would if Python had its way."""
    system, arguments = b"cposix\nsystem\n", text(command) + b"\x85"
    return {
        "REDUCE": system + arguments + b"R",
        "STACK_GLOBAL": text("posix") + text("system") + b"\x93" + arguments + b"R",
        "INST": b"(" + text(command) + b"iposix\nsystem\n",
        "OBJ": b"(" + system + text(command) + b"o",
        "NEWOBJ": system + arguments + b"\x81",
        "NEWOBJ_EX": system + arguments + b"}\x92",
        "BUILD": b"ccollections\nOrderedDict\n)R" + text("__setstate__") + system + b"\x86b",
        "EXT1": b"\x82\xf0" + arguments + b"R",
        "EXT2": b"\x83\xf0\x00" + arguments + b"R",
        "EXT4": b"\x84\xf0\x00\x00\x00" + arguments + b"R",
        "PERSID": b"Pposix system\n",
        "BINPERSID": system + arguments + b"RQ",
    }


@pytest.mark.parametrize("opcode", callers(""))
def test_no_opcode_of_a_pickle_calls_anything(opcode: str, tmp_path: Path) -> None:
    owned = tmp_path / "owned"
    entry = callers(f"touch {owned}")[opcode]
    raw = PROTOCOL + b"}" + text("w") + entry + b"s."
    path = tmp_path / "x.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", raw)
    copyreg.add_extension("posix", "system", 0xF0)
    try:
        with pytest.raises(DamagedInput):
            read_torch_table(open_for_reading(path))
        assert not owned.exists()
        if opcode in {"REDUCE", "STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"}:
            pickle.Unpickler(io.BytesIO(raw)).load()
            assert owned.exists(), "Python itself runs the command, or this tests nothing"
    finally:
        copyreg.remove_extension("posix", "system", 0xF0)
        copyreg.clear_extension_cache()


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Two models, one of whose tensors has that name."""
    for seed, folder in enumerate(("a", "b")):
        tensors = {NAME: torch.ones(4, 4) * seed, "model.norm.weight": torch.ones(4)}
        write_model(tmp_path / folder, tensors)
    return tmp_path


def said(capfd: pytest.CaptureFixture[str], *args: object) -> Said:
    code = run([str(arg) for arg in args])
    return Said(code, *capfd.readouterr())


def test_a_hostile_name_is_text_in_every_kind_of_output(
    hostile: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one, other, page = hostile / "a", hostile / "b", hostile / "page.html"
    for line in (["diff", one, other], ["inspect", one], ["verify", one, "--against", other]):
        found = said(capfd, *line, "-v")
        assert "\x1b" not in found.out + found.err
        assert "\x07" not in found.out + found.err
        assert not any(each.startswith("</script>") for each in found.out.splitlines())
        document = said(capfd, *line, "--json").out
        assert "\x1b" not in document
        json.loads(document)
    said(capfd, "diff", one, other, "--html", page)
    html = page.read_text()
    assert "<img" not in html
    assert "\x1b" not in html


def test_a_hostile_name_is_not_on_a_deltas_card(hostile: Path) -> None:
    made = make_delta(hostile / "a", hostile / "b", hostile / "delta", base_id="org/base@main")
    manifest = read_manifest(made.target if hasattr(made, "target") else hostile / "delta")
    assert manifest is not None
    card = delta_card(manifest, repo_id="me/x", revision="main", nbytes=1, target_nbytes=2)
    assert "owned" not in card
    assert "<" not in card


def test_every_attack_has_a_number_an_outcome_and_a_test_that_is_there() -> None:
    page = PAGE.read_text()
    rows = [line.split(" | ") for line in page.splitlines() if re.match(r"\| \d+ ", line)]
    assert [int(row[0].strip("| ")) for row in rows] == [*range(1, len(rows) + 1)]
    for row in rows:
        assert len(row) == 4, row
        assert TEST.search(row[3]), row
    for file, name in TEST.findall(page):
        assert re.search(rf"^ *def {name}\(", (ROOT / file).read_text(), re.MULTILINE), (file, name)

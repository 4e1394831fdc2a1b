"""The commands of docs/how-to/object-stores.md, as they stand there."""

import re
import shlex
from pathlib import Path

import pytest

from tests.support.folders import assert_same_bits, load
from tests.support.paths import ROOT
from tests.support.s3_server import S3
from weightsmith.cli.main import run
from weightsmith.ops.apply_delta import apply_delta

PAGE = ROOT / "docs" / "how-to" / "object-stores.md"


def test_the_commands_of_the_page_run(
    s3: S3, vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vicuna = vectors / "vicuna_v1_1"
    s3.upload(vicuna / "base", "llama-7b")
    s3.upload(vicuna / "delta", "runs/tuned")
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text("utf-8").replace("\\\n", "")
    lines = re.findall(r"^weightsmith .*$", text, re.MULTILINE)
    assert [run(shlex.split(line)[1:]) for line in lines] == [0, 0]
    apply_delta(vicuna / "base", vicuna / "delta", target=tmp_path / "near")
    assert_same_bits(load(tmp_path / "tuned"), load(tmp_path / "near"))

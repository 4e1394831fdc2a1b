"""What surrounds a run may be closed, full, forbidden or gone: it ends with a known exit code."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.command_line import Weightsmith
from tests.support.folders import copied, staging, write_model
from tests.support.pace import examples
from weightsmith.cli.main import run
from weightsmith.engine.manifest import NAME as MANIFEST
from weightsmith.engine.manifest import parse_manifest
from weightsmith.errors import JsonInvalid
from weightsmith.ops.apply_delta import apply_delta

WEIGHTSMITH = [sys.executable, "-m", "weightsmith"]
SHARDS = "30KB"


@pytest.fixture
def inputs(vectors: Path, tmp_path: Path) -> Path:
    """A directory that holds a base and a delta."""
    for side in ("base", "delta"):
        copied(vectors / "vicuna_v1_1" / side, tmp_path / side)
    return tmp_path


APPLY = ("apply-delta", "--base", "base", "--delta", "delta", "--target", "out", "--no-repair")


def shell(streams: str, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line with its streams as a shell sets them up."""
    line = ["sh", "-c", f'exec "$@" {streams}', "sh", *WEIGHTSMITH, *args]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, check=False)


# --- streams --------------------------------------------------------------------------------------


@pytest.mark.sampled(1)
@pytest.mark.parametrize("streams", ["<&- >&- 2>&-", "<&-", ">&-", "2>&-", "</dev/null >&0 2>&0"])
def test_closed_streams_are_as_the_null_device(streams: str, inputs: Path) -> None:
    done = shell(streams, *APPLY, cwd=inputs)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert parse_manifest((inputs / "out" / MANIFEST).read_bytes(), Path(MANIFEST)).files
    expected = apply_delta(
        inputs / "base", inputs / "delta", target=inputs / "again", repair=False
    ).target
    for path in expected.iterdir():  # no word of ours or of a library is among the bytes
        assert (inputs / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_working_directory_that_is_gone_is_said_where_it_is_needed(
    weightsmith: Weightsmith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_model(tmp_path / "model", {"model.w": torch.ones(2, 2)})
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    said = weightsmith("convert", str(model), str(tmp_path / "out"))
    assert said.code == 0, said.err
    said = weightsmith("convert", str(model), "out")
    assert said.code == 9
    assert "the system refuses the working directory: No such file or directory" in said.err


def test_who_must_be_asked_and_is_not_there_is_asked_nothing(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    done = shell("<&-", "clean-cache", "--cache-dir", "hub", "--older-than", "1d", cwd=tmp_path)
    assert done.returncode in {0, 2}
    assert "Traceback" not in done.stderr


@pytest.mark.sampled(1)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
@pytest.mark.parametrize("args", [("inspect", "base"), ("--help",), ("inspect", "base", "--json")])
def test_output_that_cannot_be_written_is_said(args: tuple[str, ...], inputs: Path) -> None:
    done = shell(">/dev/full", *args, cwd=inputs)
    assert done.returncode == 8
    assert "disk-full" in done.stderr
    assert "Traceback" not in done.stderr
    done = shell(">/dev/full 2>/dev/full", *args, cwd=inputs)
    assert (done.returncode, done.stderr) == (8, "")


# --- hung up --------------------------------------------------------------------------------------

HANGS_UP = """
import os, signal, sys
from weightsmith.cli.main import main
from weightsmith.engine.receipts import Receipt
write = Receipt.write
def write_and_hang_up(*args):
    write(*args)
    os.kill(os.getpid(), signal.SIGHUP)
Receipt.write = write_and_hang_up
nohup = "nohup" in sys.argv
if nohup:
    sys.argv.remove("nohup")
# The tests themselves may run under nohup, which their children inherit.
signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)
main()
"""
"""weightsmith, whose terminal goes when the first receipt is left."""


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no such signal on Windows")
def test_a_terminal_that_goes_ends_a_run_as_an_interrupt_does(inputs: Path) -> None:
    line = [sys.executable, "-c", HANGS_UP, *APPLY, "--max-shard-size", SHARDS]
    first = subprocess.run(line, cwd=inputs, capture_output=True, text=True, check=False)
    assert first.returncode == 129, first.stderr
    assert "error: hung up [hung-up]" in first.stderr
    assert "hint: to go on: weightsmith apply-delta" in first.stderr
    assert list((staging(inputs / "out") / "receipts").glob("*.json"))
    assert not (inputs / "out").exists()
    again = shell("", *APPLY, "--max-shard-size", SHARDS, cwd=inputs)
    assert again.returncode == 0
    assert "continuing an earlier run: " in again.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no such signal on Windows")
def test_under_nohup_a_run_outlives_its_terminal(inputs: Path) -> None:
    line = [sys.executable, "-c", HANGS_UP, *APPLY, "--max-shard-size", SHARDS, "nohup"]
    kept_on = subprocess.run(line, cwd=inputs, capture_output=True, check=False)
    assert kept_on.returncode == 0


# --- places that the system refuses ---------------------------------------------------------------


@pytest.mark.sampled(1)
@pytest.mark.parametrize("limit", [300, 0, 5000])
def test_a_size_limit_met_by_a_repair_is_no_room_and_changes_nothing(
    limit: int, inputs: Path
) -> None:
    before = {path.name: path.read_bytes() for path in (inputs / "base").iterdir()}
    done = subprocess.run(
        [*WEIGHTSMITH, "fix-tokenizer", "base"],
        cwd=inputs,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 8, done.stderr
    assert "disk-full" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name: path.read_bytes() for path in (inputs / "base").iterdir()} == before


def test_no_place_for_temporary_files_is_said(
    inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", none)
    assert run(["verify", str(inputs / "base"), "--smoke"]) in {1, 9}
    assert run(["convert", str(inputs / "base"), str(inputs / "out"), "--smoke"]) == 9
    said = capsys.readouterr().err
    assert "No usable temporary directory found [target-unwritable]" in said
    assert "TMPDIR=DIR" in said


def test_a_cache_that_cannot_be_written_to_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, os.strerror(30), str(tmp_path / "hub"))

    monkeypatch.setattr("weightsmith.ops.clean_cache.plan_clean_cache", refuse)
    assert run(["clean-cache", "-y"]) == 9
    said = capsys.readouterr().err
    assert f"error: the system refuses {tmp_path / 'hub'}: Read-only file system" in said


# --- manifests that something else wrote ----------------------------------------------------------

VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 7, -1, 1.5, "text", [], ["a"], [1], {}, {"a": 1}, {"a": {}}]
)


@pytest.fixture(scope="module")
def made(vectors: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("made") / "out"
    vector = vectors / "vicuna_v1_1"
    return apply_delta(vector / "base", vector / "delta", target=target).target


@given(data=st.data(), value=VALUES)
@settings(max_examples=examples(150))
def test_a_manifest_with_values_of_other_types_is_no_manifest_and_no_traceback(
    data: st.DataObject, value: object, made: Path
) -> None:
    """Any value, of any depth, in the place of another one."""
    raw = (made / MANIFEST).read_bytes()
    document = json.loads(raw)
    part: Any = document
    key = data.draw(st.sampled_from(sorted(document)))
    while isinstance(part[key], dict) and part[key] and data.draw(st.booleans()):
        part = part[key]
        key = data.draw(st.sampled_from(sorted(part)))
    part[key] = value
    try:
        manifest = parse_manifest(json.dumps(document).encode(), Path(MANIFEST))
    except JsonInvalid:
        return
    assert parse_manifest(manifest.to_bytes(), Path(MANIFEST)) == manifest


@pytest.mark.parametrize("command", [("verify",), ("inspect",)])
@pytest.mark.parametrize(
    "change", [{"files": {"x": {"size": "7"}}}, {"tensors": 5}, {"inputs": [1]}, {"plan": None}]
)
def test_commands_say_that_it_is_none(
    command: tuple[str, ...],
    change: dict[str, Any],
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = copied(made, tmp_path / "out")
    document = json.loads((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_text(json.dumps(document | change))
    assert run([*command, str(folder)]) in {0, 1, 6}
    said = "".join(capsys.readouterr())
    assert "Traceback" not in said

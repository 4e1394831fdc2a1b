"""All that belongs to a model travels with it, no more open than it was, and nothing else does."""

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.folders import contents, state, write_model
from tests.support.memory import HAS_PEAK, MIB, peak_nbytes
from weightsmith.engine.options import Options
from weightsmith.errors import InputChanged, SidecarEscapes
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.convert import convert, plan_convert
from weightsmith.ops.job import carry_out
from weightsmith.ops.make_delta import make_delta, plan_make_delta
from weightsmith.ops.verify.verify import verify

MODULES = {
    "modules.json": b"[]",
    "sentence_bert_config.json": b"{}",
    "1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}',
    "2_Dense/config.json": b"{}",
    "2_Dense/model.safetensors": b"a module's own weights",
    "spm.model": b"\x00pieces",
    "vocab.bpe": b"merges",
    "quantize_config.json": b"{}",
}
"""What sentence-transformers and others keep beside the weights."""
LEFT = ("optimizer.pt", "trainer_state.json", "train.log", ".env", "onnx/model.onnx")


def write_target(folder: Path) -> Path:
    """A model with `MODULES` beside it, and what is none of it."""
    torch.manual_seed(1)
    write_model(folder, {"model.norm.weight": torch.ones(4), "w": torch.randn(40, 4)})
    for name, content in {**MODULES, **dict.fromkeys(LEFT, b"no")}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def beside(folder: Path) -> dict[str, bytes]:
    """What stands beside the weights, but for the config and our record."""
    made = contents(folder)
    return {n: made[n] for n in made.keys() - {"model.safetensors", "weightsmith.json"}}


def test_a_conversion_takes_subfolders_of_known_layouts_and_lists_what_it_leaves(
    tmp_path: Path,
) -> None:
    source = write_target(tmp_path / "in")
    before = state(source)
    job = plan_convert(source, tmp_path / "out")
    (note,) = (n for n in job.bindings.inputs["source"].notes if n.startswith("not used: "))
    assert {*note.removeprefix("not used: ").split(", ")} == {*LEFT[:-1], "onnx/"}
    carry_out(job, Options())
    found = beside(tmp_path / "out")
    assert {n: found[n] for n in found.keys() - {"config.json"}} == MODULES
    checks = {check.name: check.verdict for check in verify(tmp_path / "out").checks}
    assert checks["digests"] == "pass"
    assert state(source) == before


def test_an_exact_delta_gives_them_back_to_the_byte(tmp_path: Path) -> None:
    write_model(tmp_path / "base", {"model.norm.weight": torch.ones(4), "w": torch.ones(40, 4)})
    target = write_target(tmp_path / "target")
    make_delta(tmp_path / "base", target, tmp_path / "delta")
    apply_delta(tmp_path / "base", tmp_path / "delta", target=tmp_path / "out")
    found = beside(tmp_path / "out")
    assert found == {**MODULES, "config.json": (target / "config.json").read_bytes()}
    assert apply_delta(tmp_path / "base", tmp_path / "delta", target=tmp_path / "out").already_done


def test_a_large_file_is_listed_and_left_and_taken_when_asked_for(tmp_path: Path) -> None:
    source = write_model(tmp_path / "in", {"w": torch.ones(4)})
    with (source / "corpus.txt").open("wb") as file:
        file.truncate(64_000_001)
    notes = plan_convert(source, tmp_path / "out").plan.notes
    assert any("corpus.txt (64.0 MB)" in note and "all_sidecars" in note for note in notes)
    convert(source, tmp_path / "out")
    assert not (tmp_path / "out" / "corpus.txt").exists()
    convert(source, tmp_path / "all", all_sidecars=True)
    assert (tmp_path / "all" / "corpus.txt").stat().st_size == 64_000_001
    assert plan_convert(source, tmp_path / "all", all_sidecars=True).plan.notes == ()


@HAS_PEAK
def test_no_file_is_held_whole_for_being_copied(tmp_path: Path) -> None:
    program = """
import sys
from weightsmith.ops.convert import convert
convert(sys.argv[1], sys.argv[2], all_sidecars=True)
"""
    peaks = []
    for number, nbytes in enumerate((1000, 60_000_000)):
        source = write_model(tmp_path / f"in{number}", {"w": torch.ones(4)})
        with (source / "corpus.txt").open("wb") as file:
            file.truncate(nbytes)
        peaks.append(peak_nbytes(program, source, tmp_path / f"out{number}"))
    assert peaks[1] - peaks[0] < 20 * MIB


def test_a_file_that_changes_between_plan_and_copy_is_refused(tmp_path: Path) -> None:
    source = write_model(tmp_path / "in", {"w": torch.ones(4)})
    (source / "README.md").write_text("before")
    job = plan_convert(source, tmp_path / "out")
    (source / "README.md").write_text("after!")
    with pytest.raises(InputChanged, match=r"README\.md"):
        carry_out(job, Options())
    assert not (tmp_path / "out").exists()


# --- who may read it ------------------------------------------------------------------------------


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def usual_umask() -> Any:
    """022, as most have."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("usual_umask")
def test_a_private_model_stays_private(tmp_path: Path) -> None:
    source = write_target(tmp_path / "in")
    for path in source.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o644)
    (source / "README.md").write_text("a card")
    (source / "README.md").chmod(0o600)
    (source / "config.json").chmod(0o640)
    source.chmod(0o750)
    convert(source, tmp_path / "out", dtype="float16")
    made = tmp_path / "out"
    assert mode(made) == 0o750
    assert mode(made / "README.md") == 0o600
    assert mode(made / "config.json") == 0o640  # made anew, for the same eyes
    assert mode(made / "modules.json") == 0o644
    assert mode(made / "model.safetensors") == 0o644


@pytest.mark.usefixtures("usual_umask")
def test_weights_follow_the_umask_whatever_their_writer_left(tmp_path: Path) -> None:
    source = write_model(tmp_path / "in", {"w": torch.ones(4)})
    (source / "model.safetensors").chmod(0o600)
    source.chmod(0o555)
    convert(source, tmp_path / "out")
    assert mode(tmp_path / "out" / "model.safetensors") == 0o644
    assert mode(tmp_path / "out") == 0o755


@pytest.mark.usefixtures("usual_umask")
def test_what_is_made_of_two_is_no_more_open_than_either(tmp_path: Path) -> None:
    write_model(tmp_path / "base", {"model.norm.weight": torch.ones(4), "w": torch.ones(40, 4)})
    target = write_target(tmp_path / "target")
    (tmp_path / "base").chmod(0o711)
    target.chmod(0o750)
    make_delta(tmp_path / "base", target, tmp_path / "delta")
    assert mode(tmp_path / "delta") == 0o710


# --- links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["README.md", "1_Pooling/config.json", "1_Pooling"])
def test_a_link_to_elsewhere_is_refused_and_never_copied(name: str, tmp_path: Path) -> None:
    source = write_target(tmp_path / "in")
    secret = tmp_path / "secret"
    if name == "1_Pooling":
        shutil.rmtree(source / name)
        secret.mkdir()
        (secret / "config.json").write_text("secret")
    else:
        (source / name).unlink(missing_ok=True)
        secret.write_text("secret")
    (source / name).symlink_to(secret)
    with pytest.raises(SidecarEscapes, match="secret"):
        plan_convert(source, tmp_path / "out")
    write_model(tmp_path / "base", {"model.norm.weight": torch.ones(4), "w": torch.ones(40, 4)})
    with pytest.raises(SidecarEscapes, match="secret"):
        plan_make_delta(tmp_path / "base", source, tmp_path / "delta")


def test_links_within_the_folder_and_into_the_hubs_blobs_are_followed(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / ("c" * 40)
    write_target(snapshot)
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir()
    for path in [each for each in snapshot.rglob("*") if each.is_file()]:
        blob = blobs / path.relative_to(snapshot).as_posix().replace("/", "-")
        path.rename(blob)
        path.symlink_to(os.path.relpath(blob, path.parent))
    (snapshot / "LICENSE").symlink_to("modules.json")
    (tmp_path / "link").symlink_to(snapshot)
    convert(tmp_path / "link", tmp_path / "out")
    found = beside(tmp_path / "out")
    assert {n: found[n] for n in found.keys() - {"config.json", "LICENSE"}} == MODULES
    assert found["LICENSE"] == MODULES["modules.json"]


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "linked.json", "up/secret"])
def test_verify_opens_nothing_outside_the_folder_whatever_the_manifest_names(
    name: str, tmp_path: Path
) -> None:
    convert(write_model(tmp_path / "in", {"w": torch.ones(4)}), tmp_path / "out")
    made = tmp_path / "out"
    (tmp_path / "secret").write_text("secret")
    (made / "linked.json").symlink_to(tmp_path / "secret")
    (made / "up").symlink_to(tmp_path)
    manifest = json.loads((made / "weightsmith.json").read_bytes())
    manifest["sidecars"][name] = {"size": 6, "digest": "0" * 64}
    (made / "weightsmith.json").write_text(json.dumps(manifest))
    (check,) = (each for each in verify(made).checks if each.name == "digests")
    assert check.verdict == "FAIL"
    assert any("leads out of" in detail for detail in check.details)

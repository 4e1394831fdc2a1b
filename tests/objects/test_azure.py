"""Models in Azure's object store, on its emulator: the same as on a disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support.azurite import PROGRAM, Azurite, azurite
from tests.support.folders import contents, write_model
from weightsmith.cli.main import run
from weightsmith.errors import InputChanged
from weightsmith.sources.recognise import open_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="needs Azurite: npm install -g azurite"),
]

NORM = "model.norm.weight"


@pytest.fixture(scope="module")
def running() -> Iterator[Azurite]:
    with azurite() as server:
        yield server


@pytest.fixture
def azure(running: Azurite, monkeypatch: pytest.MonkeyPatch) -> Azurite:
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return running


def model(folder: Path, seed: int) -> Path:
    numbers = torch.Generator().manual_seed(seed)
    names = [f"model.layers.{n}.mlp.up_proj.weight" for n in range(4)]
    made = {name: torch.randn(96, 64, generator=numbers).half() / 50 for name in names}
    return write_model(folder, {**made, NORM: torch.full((64,), float(seed)).half()}, shards=2)


def test_apply_delta_from_azure_gives_the_bytes_that_it_gives_from_a_disk(
    azure: Azurite, tmp_path: Path
) -> None:
    base, target = model(tmp_path / "base", 1), model(tmp_path / "target", 2)
    line = ["-q", "make-delta", "--base", str(base), "--target", str(target)]
    assert run([*line, "--delta", str(tmp_path / "delta")]) == 0
    far, delta = azure.upload(base, "base"), azure.upload(tmp_path / "delta", "runs/delta")
    assert run(["-q", "inspect", far]) == 0
    line = ["-q", "apply-delta", "--base", far, "--delta", delta]
    assert run([*line, "--target", str(tmp_path / "made")]) == 0
    made = contents(tmp_path / "made")
    assert {name: made[name] for name in contents(target)} == contents(target)


def test_an_object_that_is_replaced_in_mid_run_is_noticed(azure: Azurite, tmp_path: Path) -> None:
    checkpoint = open_model(azure.upload(model(tmp_path / "one", 1), "changes"))
    azure.upload(model(tmp_path / "two", 2), "changes")
    with pytest.raises(InputChanged, match="az://models/changes/model-0000"):
        checkpoint.read_whole(NORM)


@pytest.mark.parametrize("address", ["az://models/nothing", "az://nobody/x"])
def test_what_is_not_there_is_not_found(
    address: str, azure: Azurite, capsys: pytest.CaptureFixture[str]
) -> None:
    azure.put("here/config.json", b"{}")
    assert run(["inspect", address]) == 3
    assert "[source-not-found]" in capsys.readouterr().err

"""An exact delta takes little: no torch, and a memory that does not know the model's size."""

from pathlib import Path

import numpy as np
import pytest

from tests.support.delta_models import write_pair
from tests.support.memory import HAS_PEAK, MIB, peak_nbytes
from weightsmith.formats.safetensors_header import layout
from weightsmith.formats.tensors import TensorInfo

WORK = """
import sys
from pathlib import Path
from weightsmith.engine.options import Options
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.make_delta import make_delta
folder = Path(sys.argv[1])
options = Options(workers=2)
make_delta(folder / "base", folder / "target", folder / "delta", options=options)
apply_delta(folder / "base", folder / "delta", target=folder / "out", options=options)
assert "torch" not in sys.modules
"""


def peak(folder: Path) -> int:
    """Peak resident bytes of a process that makes a delta and applies it."""
    return peak_nbytes(WORK, folder)


def write(path: Path, seed: int, count: int) -> None:
    """A model of `count` matrices of 8 MiB."""
    path.parent.mkdir(parents=True)
    infos = [TensorInfo(f"model.layers.{n}.up.weight", "F16", (2048, 2048)) for n in range(count)]
    header, _ = layout(infos, {"format": "pt"})
    with path.open("wb") as file:
        file.write(header)
        for _ in infos:
            base = np.random.default_rng(0).normal(0, 0.02, 2048 * 2048)
            step = np.random.default_rng(seed).normal(0, 0.0002, 2048 * 2048)
            file.write((base + step).astype("<f2").tobytes())


@pytest.mark.slow
def test_an_exact_delta_is_made_and_applied_without_torch(tmp_path: Path) -> None:
    write_pair(tmp_path)
    assert peak(tmp_path) < 200 * MIB


@pytest.mark.slow
@HAS_PEAK
def test_memory_does_not_depend_on_the_model(tmp_path: Path) -> None:
    found = {}
    for count in (4, 24):
        for seed, side in enumerate(("base", "target")):
            write(tmp_path / str(count) / side / "model.safetensors", seed, count)
        found[count] = peak(tmp_path / str(count))
    assert found[24] < found[4] + 16 * MIB
    assert found[24] < 160 * MIB

"""Whatever happens to the bytes of an output or of a delta, `verify` notices."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.damage import harm
from tests.support.folders import copied
from weightsmith.engine.options import Options
from weightsmith.errors import WeightsmithError
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.make_delta import make_delta
from weightsmith.ops.verify.verify import verify

SHOWN, ALL = 40, 2000
"""How many of each kind of folder are harmed in the fast suite, and in the slow one."""


@pytest.fixture(scope="module")
def sound(vectors: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An output in several files, and an exact delta."""
    folder = tmp_path_factory.mktemp("sound")
    vicuna = vectors / "vicuna_v1_1"
    target = copied(vicuna / "target", folder / "target", tokenizer=False)
    (target / "expected.safetensors").rename(target / "model.safetensors")
    make_delta(vicuna / "base", target, folder / "delta")
    made = folder / "model"
    apply_delta(vicuna / "base", vicuna / "delta", target=made, max_shard_nbytes=30_000)
    return {name: folder / name for name in ("model", "delta")}


def noticed(folder: Path) -> bool:
    """Whether `verify` fails, or refuses to read it."""
    try:
        return not verify(folder, options=Options(workers=1)).passed()
    except WeightsmithError:
        return True


def missed(source: Path, work: Path, seeds: range) -> Iterator[str]:
    """What was done to a copy of a folder and not noticed."""
    folder = copied(source, work)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for seed in seeds:
        done = harm(folder, seed)
        if not noticed(folder):
            yield f"seed {seed}: {done}"
        for path, content in before.items():
            if path.read_bytes() != content:
                path.write_bytes(content)


@pytest.mark.parametrize("what", ["model", "delta"])
@pytest.mark.parametrize(
    "seeds", [range(SHOWN // 2), pytest.param(range(ALL // 2), marks=pytest.mark.slow)], ids=len
)
def test_every_harm_is_noticed(
    sound: dict[str, Path], what: str, seeds: range, tmp_path: Path
) -> None:
    assert not noticed(sound[what]), "a sound one passes, or the rest says nothing"
    assert not [*missed(sound[what], tmp_path / what, seeds)]

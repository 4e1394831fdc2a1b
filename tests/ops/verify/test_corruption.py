"""Whatever happens to the bytes of an output or of a delta, `verify` notices."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.damage import harm
from tests.support.folders import copied
from weightsmith import fs
from weightsmith.engine.options import Options
from weightsmith.errors import WeightsmithError
from weightsmith.formats.torch_zip import read_torch_table
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.make_delta import make_delta
from weightsmith.ops.verify.verify import verify

SHOWN, ALL = 40, 2000
"""How many of each kind of folder are harmed in the fast suite, and in the slow one."""


@pytest.fixture(scope="module")
def sound(vectors: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An output in several files, an exact delta, and an output in torch files."""
    folder = tmp_path_factory.mktemp("sound")
    vicuna = vectors / "vicuna_v1_1"
    target = copied(vicuna / "target", folder / "target", tokenizer=False)
    (target / "expected.safetensors").rename(target / "model.safetensors")
    make_delta(vicuna / "base", target, folder / "delta")
    made = folder / "model"
    apply_delta(vicuna / "base", vicuna / "delta", target=made, max_shard_nbytes=30_000)
    release = vectors / "oasst_xor"
    apply_delta(release / "base", release / "delta", target=folder / "torch")
    return {name: folder / name for name in ("model", "delta", "torch")}


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


@pytest.mark.parametrize("what", ["model", "delta", "torch"])
@pytest.mark.parametrize(
    "seeds", [range(SHOWN // 2), pytest.param(range(ALL // 2), marks=pytest.mark.slow)], ids=len
)
def test_every_harm_is_noticed(
    sound: dict[str, Path], what: str, seeds: range, tmp_path: Path
) -> None:
    assert not noticed(sound[what]), "a sound one passes, or the rest says nothing"
    assert not [*missed(sound[what], tmp_path / what, seeds)]


def beside_tensors(path: Path) -> list[int]:
    """Where a torch file has bytes that are in no tensor: padding, pickle, directory."""
    held = read_torch_table(fs.open_for_reading(path)).tensors
    inside = {at for each in held for at in range(each.offset, each.offset + each.info.nbytes)}
    return [at for at in range(path.stat().st_size) if at not in inside]


@pytest.mark.parametrize("step", [400, pytest.param(7, marks=pytest.mark.slow)])
def test_any_changed_byte_beside_the_tensors_of_a_torch_file_is_noticed(
    sound: dict[str, Path], step: int, tmp_path: Path
) -> None:
    folder = copied(sound["torch"], tmp_path / "torch")
    path = folder / "pytorch_model-00002-of-00002.bin"
    whole = path.read_bytes()
    missed = []
    for at in beside_tensors(path)[::step]:
        changed = bytearray(whole)
        changed[at] ^= 1
        path.write_bytes(changed)
        missed += [at] * (not noticed(folder))
    for added in (b"\0", b"PK\5\6"):
        path.write_bytes(whole + added)
        missed += [len(whole)] * (not noticed(folder))
    assert not missed

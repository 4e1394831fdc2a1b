"""A model with a merged LoRA becomes a delta of a few percent, and comes back bit for bit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from tests.support.delta_models import edit_record, trained, weights
from tests.support.folders import contents, copied, write_model
from tests.support.low_rank_matrices import write_merged
from tests.support.memory import HAS_PEAK, MIB, peak_nbytes
from weightsmith.engine.options import Options
from weightsmith.errors import DeltaInvalid
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.deltas.card import delta_card
from weightsmith.ops.inspect import inspect
from weightsmith.ops.make_delta import make_delta
from weightsmith.plan.exact_record import DeltaRecord

MERGED = ("model.layers.0.q.weight", "model.layers.1.q.weight", "model.layers.1.experts")


def product(*shape: int, rank: int, seed: int) -> Tensor:
    left = weights(*shape[:-1], rank, seed=seed, dtype=torch.float32)
    right = weights(*shape[:-2], rank, shape[-1], seed=seed + 1, dtype=torch.float32)
    return left @ right


def base_tensors() -> dict[str, Tensor]:
    return {
        "model.embed_tokens.weight": weights(400, 256, seed=1),
        MERGED[0]: weights(1024, 1200, seed=2),  # two spans
        MERGED[1]: weights(512, 1024, seed=3, dtype=torch.float16),
        MERGED[2]: weights(2, 256, 384, seed=4),
        "model.layers.1.up.weight": weights(512, 512, seed=5),
        "model.norm.weight": torch.ones(256, dtype=torch.bfloat16),
    }


def target_tensors() -> dict[str, Tensor]:
    """Three were changed by a product, one by training, two not at all."""
    target = base_tensors()
    for seed, name in enumerate(MERGED):
        base = target[name]
        change = product(*base.shape, rank=4, seed=10 * seed + 10)
        target[name] = (base.float() + change).to(base.dtype)
    return target | {"model.layers.1.up.weight": trained(target["model.layers.1.up.weight"])}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``base``, ``target`` and ``delta``, which no test writes to."""
    folder = tmp_path_factory.mktemp("low-rank")
    base = write_model(folder / "base", base_tensors())
    target = write_model(folder / "target", target_tensors(), shards=2)
    make_delta(base, target, folder / "delta", options=Options(workers=2))
    return folder


def record(folder: Path) -> DeltaRecord:
    manifest = json.loads((folder / "weightsmith.json").read_bytes())
    return DeltaRecord.from_document(manifest["delta"])


def test_what_was_merged_is_found_and_told(folder: Path) -> None:
    ranks = {each.info.name: each.rank for each in record(folder / "delta").tensors}
    assert {name: rank for name, rank in ranks.items() if rank} == dict.fromkeys(MERGED, 4)
    said = "3 of 6 tensors are their base plus rank 4"
    assert said in inspect(folder / "delta").notes
    again = make_delta(folder / "base", folder / "target", folder / "delta")
    assert again.already_done
    assert again.low_rank == said


def test_what_was_merged_takes_a_few_percent(folder: Path) -> None:
    held: dict[str, int] = {}
    for path in (folder / "delta").glob("*.safetensors"):
        with safe_open(path, "np") as file:
            held |= {name: file.get_tensor(name).nbytes for name in file.keys()}  # noqa: SIM118
    for name in MERGED:
        assert held[name] < 0.06 * base_tensors()[name].nbytes


@pytest.mark.parametrize("workers", [1, 3])
def test_the_targets_files_come_back_byte_for_byte(
    folder: Path, tmp_path: Path, workers: int
) -> None:
    options = Options(workers=workers)
    out = tmp_path / "out"
    apply_delta(folder / "base", folder / "delta", target=out, options=options)
    restored = contents(out)
    assert restored.pop("weightsmith.json")
    assert restored == contents(folder / "target")


@pytest.mark.sampled(1)
@pytest.mark.parametrize("workers", [4, 1])
def test_the_same_delta_is_made_by_any_number_of_workers(
    folder: Path, tmp_path: Path, workers: int
) -> None:
    options = Options(workers=workers)
    make_delta(folder / "base", folder / "target", tmp_path / "delta", options=options)
    assert contents(tmp_path / "delta") == contents(folder / "delta")


def test_a_delta_says_by_its_form_that_it_has_factors(folder: Path, tmp_path: Path) -> None:
    def form(delta: Path) -> str:
        found: str = json.loads((delta / "weightsmith.json").read_bytes())["delta"]["form"]
        return found

    assert form(folder / "delta") == "exact-delta@2"
    plain = base_tensors() | {"model.norm.weight": weights(256)}
    target = write_model(tmp_path / "target", plain)
    make_delta(folder / "base", target, tmp_path / "delta")
    assert form(tmp_path / "delta") == "exact-delta@1"


def test_tied_tensors_share_their_factors(tmp_path: Path) -> None:
    base = weights(512, 1024)
    target = (base.float() + product(512, 1024, rank=4, seed=1)).to(base.dtype)
    for name, tensor in (("base", base), ("target", target)):
        write_model(tmp_path / name, {"a": tensor, "b": tensor.clone()})
    made = make_delta(tmp_path / "base", tmp_path / "target", tmp_path / "delta")
    assert made.low_rank == "2 of 2 tensors are their base plus rank 4"
    assert made.nbytes < 0.06 * base.nbytes
    apply_delta(tmp_path / "base", tmp_path / "delta", target=tmp_path / "out")
    assert contents(tmp_path / "target").items() <= contents(tmp_path / "out").items()


@pytest.mark.parametrize(
    "name, rank",
    [
        *((MERGED[0], rank) for rank in (5, 0, 1025, -1, "4")),
        ("model.layers.1.up.weight", 4),
        ("model.norm.weight", 1),
    ],
)
def test_a_record_that_says_something_else_of_its_factors_is_refused(
    folder: Path, tmp_path: Path, name: str, rank: object
) -> None:
    def say_rank(said: Any) -> None:
        (tensor,) = [each for each in said["target"]["tensors"] if each["name"] == name]
        tensor["rank"] = rank

    delta = copied(folder / "delta", tmp_path / "delta")
    edit_record(delta, say_rank)
    with pytest.raises(DeltaInvalid):
        apply_delta(folder / "base", delta, target=tmp_path / "out")
    assert not (tmp_path / "out").exists()


WORK = """
import sys
from pathlib import Path
from weightsmith.engine.options import Options
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.make_delta import make_delta
folder = Path(sys.argv[1])
options = Options(workers=2)
made = make_delta(folder / "base", folder / "target", folder / "delta", options=options)
assert made.low_rank, "nothing found"
apply_delta(folder / "base", folder / "delta", target=folder / "out", options=options)
assert "torch" not in sys.modules
"""


@pytest.mark.slow
@HAS_PEAK
def test_memory_does_not_grow_with_the_tensor(tmp_path: Path) -> None:
    """But for its factors, of which the left one has 32 bytes a row here."""
    found = {}
    for rows in (8 * 1024, 64 * 1024):
        write_merged(tmp_path / str(rows), rows)
        found[rows] = peak_nbytes(WORK, tmp_path / str(rows))
    assert found[64 * 1024] < found[8 * 1024] + 24 * MIB
    assert found[64 * 1024] < 260 * MIB


def test_the_card_tells_that_a_lora_was_merged(folder: Path, tmp_path: Path) -> None:
    made = make_delta(
        folder / "base", folder / "target", tmp_path / "delta", base_id="org/base@12ab"
    )
    card = delta_card(made.manifest, repo_id="me/d", revision="main", nbytes=1, target_nbytes=2)
    assert "\n3 of 6 tensors are their base plus rank 4, as after a LoRA was merged.\n" in card

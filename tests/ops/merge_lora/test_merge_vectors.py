"""Every merge vector comes out as the table says: as peft made it, by the formula, or refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from tests.support.folders import load
from tests.support.merge_cases import CASES, WEIGHTS, MergeCase
from tests.support.merge_matrix import PAGE, render
from tests.support.paths import ROOT
from tests.support.vector_sums import expected_sums, tensor_sums
from weightsmith.errors import AdapterDoesNotFit

MERGE = """
import sys
from pathlib import Path
from tests.support.merge_cases import CASES
vectors, out = map(Path, sys.argv[1:])
for case in CASES:
    if case.outcome != "refused":
        case.merge(vectors, out / case.id)
"""


@pytest.fixture(scope="module")
def merged(vectors: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them, merged by products with the same bits on all processors of Intel's since AVX2:
    its library has such, where it is told before torch is loaded.
    """
    out = tmp_path_factory.mktemp("merged")
    env = {**os.environ, "MKL_CBWR": "AUTO,STRICT", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", MERGE, str(vectors), str(out)], env=env, check=True)
    return out


def formula_case(vector: str) -> MergeCase:
    """The vector's case that is merged by the formula."""
    return next(case for case in CASES if (case.vector, case.outcome) == (vector, "formula"))


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.outcome == "equal"], ids=lambda case: case.id
)
def test_what_peft_made_comes_out_bit_for_bit(case: MergeCase, vectors: Path, merged: Path) -> None:
    vector = vectors / "merge" / case.vector
    expected = dict(expected_sums(vector, case.expected))
    found = tensor_sums(merged / case.id)
    assert found.keys() == expected.keys()
    differing = [name for name in found if found[name] != expected[name] and name not in case.but]
    assert not differing
    # Unless something was merged at all, the test would say nothing.
    assert found != tensor_sums(vector / case.base)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.outcome == "refused"], ids=lambda case: case.id
)
def test_what_cannot_be_merged_is_refused_by_name(
    case: MergeCase, vectors: Path, tmp_path: Path
) -> None:
    with pytest.raises(AdapterDoesNotFit) as caught:
        case.merge(vectors, tmp_path / "out")
    assert any(case.why in line for line in caught.value.context)
    assert not (tmp_path / "out").exists()


def test_experts_of_transformers_4_round_once(vectors: Path, merged: Path) -> None:
    case = formula_case("moe_v4_mixtral")
    vector = vectors / "merge" / case.vector
    assert_close(load(merged / case.id), summed(vector, {"adapter": 1.0}))


def test_weights_make_one_sum_in_float32_that_is_rounded_once(vectors: Path, merged: Path) -> None:
    case = formula_case("multi_weighted")
    vector = vectors / "merge" / case.vector
    weights = dict(zip(case.loras, WEIGHTS, strict=True))
    assert_close(load(merged / case.id), summed(vector, weights))


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Both are the same sum in float32, made on another processor perhaps, and rounded once."""
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        same = tensor == expected[name].to(tensor.dtype)
        assert same.float().mean() > 0.999, name


def summed(vector: Path, weights: dict[str, float]) -> dict[str, Tensor]:
    """A base with the products of LoRAs added, in float32."""
    found = {name: tensor.float() for name, tensor in load(vector / "base").items()}
    for lora, weight in weights.items():
        config = json.loads((vector / lora / "adapter_config.json").read_text())
        factors = load_file(vector / lora / "adapter_model.safetensors")
        for name, b in factors.items():
            if "lora_B" in name:
                a = factors[name.replace("lora_B", "lora_A")]
                target = name.removeprefix("base_model.model.").replace("lora_B.", "")
                scale = config["lora_alpha"] / config["r"] * weight
                found[target] += (b.float() @ a.float()) * scale
    return found


def test_resized_embeddings_that_were_tied_stay_tied(vectors: Path, merged: Path) -> None:
    case = formula_case("resized_vocab_tied")
    expected = dict(expected_sums(vectors / "merge" / case.vector, "expected"))
    del expected["lm_head.weight"]
    assert tensor_sums(merged / case.id) == expected
    config = json.loads((merged / case.id / "config.json").read_text())
    assert (config["vocab_size"], config["tie_word_embeddings"]) == (58, True)


def test_every_vector_is_in_the_table(vectors: Path) -> None:
    assert {case.vector for case in CASES} == {f.name for f in (vectors / "merge").iterdir()}


def test_the_matrix_in_the_documentation_is_fresh() -> None:
    assert render() in PAGE.read_text(encoding="utf-8"), "make docs"

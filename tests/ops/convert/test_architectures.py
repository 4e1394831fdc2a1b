"""Other families than LLaMA: made by transformers, written anew, and loaded by it again."""

import itertools
from pathlib import Path

import pytest
import torch

from tests.support.families import (
    FAMILIES,
    FORMED,
    FORMS,
    loaded,
    save,
    stored,
    write,
)
from tests.support.folders import assert_same_bits, bits, load
from tests.support.pace import mostly_slow
from weightsmith.errors import ModelGivenAsDelta
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.convert import convert


@pytest.mark.sampled(4)
@pytest.mark.parametrize("family, form", mostly_slow(itertools.product(FAMILIES, FORMS), FORMED))
def test_a_model_of_any_family_is_written_anew(family: str, form: str, tmp_path: Path) -> None:
    expected = loaded(save(tmp_path / "in", family, form)).state_dict()
    convert(tmp_path / "in", tmp_path / "out", max_shard_nbytes=20_000)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    found, weights = load(tmp_path / "out"), stored(family)[1]
    assert_same_bits(found, weights)
    assert_same_bits(loaded(tmp_path / "out").state_dict(), expected)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_cast_of_any_family_is_transformers_own(family: str, tmp_path: Path) -> None:
    model = loaded(save(tmp_path / "in", family))
    convert(tmp_path / "in", tmp_path / "out", dtype="bfloat16")
    expected = model.to(torch.bfloat16).state_dict()
    assert_same_bits(loaded(tmp_path / "out").state_dict(), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_additive_delta_of_any_family_is_applied(family: str, tmp_path: Path) -> None:
    base, target = stored(family)[1], stored(family, seed=1)[1]
    write(tmp_path / "base", family, base)
    write(tmp_path / "delta", family, {name: target[name] - base[name] for name in base})
    apply_delta(tmp_path / "base", tmp_path / "delta", target=tmp_path / "out")
    found = load(tmp_path / "out")
    assert found.keys() == base.keys()
    for name, tensor in found.items():
        assert torch.equal(bits(tensor), bits(base[name] + (target[name] - base[name]))), name
    loaded(tmp_path / "out")


def test_a_model_of_another_family_given_as_delta_is_told(tmp_path: Path) -> None:
    save(tmp_path / "base", "mistral")
    save(tmp_path / "delta", "mistral", seed=1)
    with pytest.raises(ModelGivenAsDelta):
        apply_delta(tmp_path / "base", tmp_path / "delta", target=tmp_path / "out")

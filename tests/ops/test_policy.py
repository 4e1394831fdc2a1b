"""Releases differ in what they mean by rows that the base lacks; no meaning is guessed."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.folders import assert_same_bits, load, write_model
from weightsmith.errors import (
    CatalogueContradicted,
    DeltaGivenAsBase,
    InputsSwapped,
    ModelGivenAsDelta,
    RowsUndecided,
    TensorsDoNotFit,
)
from weightsmith.ops.apply_delta import apply_delta, plan_apply_delta
from weightsmith.ops.make_delta import plan_make_delta
from weightsmith.ops.verify.published_sum import sum_report
from weightsmith.sources.recognise import open_model

WHOLE = ("model.embed_tokens.weight", "lm_head.weight")


def config(rows: int) -> dict[str, object]:
    return {"model_type": "llama", "torch_dtype": "float16", "vocab_size": rows}


def tensors(rows: int, seed: int, spread: float, norm: float) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {
        "model.embed_tokens.weight": (torch.randn(rows, 16) * spread).half(),
        "model.layers.0.mlp.up_proj.weight": (torch.randn(24, 16) * spread).half(),
        "model.norm.weight": torch.full((16,), norm).half(),
        "lm_head.weight": (torch.randn(rows, 16) * spread).half(),
    }


@pytest.fixture
def ziya(tmp_path: Path) -> tuple[Path, Path, dict[str, torch.Tensor]]:
    """Base, delta and target of a release that stores both embeddings whole, as Ziya does."""
    base = tensors(10, 0, 0.02, 1.0)
    target = {name: value.clone() for name, value in tensors(14, 1, 0.02, 1.0).items()}
    for name in target.keys() - set(WHOLE):
        target[name] = base[name] + torch.full_like(base[name], 2**-12)
    delta = {n: t if n in WHOLE else t - base[n] for n, t in target.items()}
    made = {n: t if n in WHOLE else base[n] + delta[n] for n, t in target.items()}
    return (
        write_model(tmp_path / "base", base, config=config(10)),
        write_model(tmp_path / "delta", delta, config=config(14)),
        made,
    )


@pytest.mark.parametrize(
    "vector, policy",
    [
        ("vicuna_v0", {"new_rows": "zero"}),
        ("alpaca_wdiff", {"new_rows": "mean"}),
        ("llava_v0", {}),
        ("llava_v0", {"new_rows": "zero", "whole": ["model.mm_projector.*"]}),
    ],
)
def test_every_bit_is_the_original_tools(
    vectors: Path, tmp_path: Path, vector: str, policy: dict[str, object]
) -> None:
    apply_delta(
        vectors / vector / "base",
        vectors / vector / "delta",
        target=tmp_path / "out",
        **policy,  # type: ignore[arg-type]
    )
    expected = load_file(vectors / vector / "expected" / "expected.safetensors")
    kept = {name: each for name, each in expected.items() if "inv_freq" not in name}
    assert_same_bits(load(tmp_path / "out"), kept)


def test_embeddings_that_are_stored_whole_come_out_as_they_are(
    ziya: tuple[Path, Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    base, delta, target = ziya
    apply_delta(base, delta, target=tmp_path / "out", whole=WHOLE)
    assert_same_bits(load(tmp_path / "out"), target)


def test_a_row_policy_would_be_silently_wrong_where_embeddings_are_whole(
    ziya: tuple[Path, Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    base, delta, target = ziya
    apply_delta(base, delta, target=tmp_path / "out", new_rows="zero")
    assert not torch.equal(load(tmp_path / "out")[WHOLE[0]], target[WHOLE[0]])


def test_rows_without_a_policy_are_refused_with_the_choices(
    ziya: tuple[Path, Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    base, delta, _ = ziya
    with pytest.raises(RowsUndecided) as caught:
        plan_apply_delta(base, delta, target=tmp_path / "out")
    assert caught.value.exit_code == 7
    assert {*caught.value.context[:2]} == {
        "model.embed_tokens.weight, F16 [14, 16]",
        "lm_head.weight, F16 [14, 16]",
    }
    for choice in ("new_rows=zero", "new_rows=mean", "whole="):
        assert choice in caught.value.hint_text
    assert not (tmp_path / "out").exists()


def test_a_directory_named_like_a_release_is_applied_as_that_release(
    vectors: Path, tmp_path: Path
) -> None:
    delta = tmp_path / "alpaca-7b-wdiff"
    shutil.copytree(vectors / "alpaca_wdiff" / "delta", delta)
    job = plan_apply_delta(vectors / "alpaca_wdiff" / "base", delta, target=tmp_path / "out")
    rows = {
        tensor.params.get("new_rows")
        for tensor in job.plan.tensors
        if "embed" in tensor.output.name
    }
    assert rows == {"mean"}
    assert job.plan.release == "alpaca-7b"


def test_an_option_against_the_catalogue_stops(vectors: Path, tmp_path: Path) -> None:
    llava = vectors / "llava_v0"
    with pytest.raises(CatalogueContradicted, match="LLaVA") as caught:
        plan_apply_delta(llava / "base", llava / "delta", target=tmp_path / "out", new_rows="mean")
    assert caught.value.exit_code == 7


def test_a_delta_on_a_base_of_another_size_is_told_by_their_configs(tmp_path: Path) -> None:
    sizes = {"base": (32, 4), "delta": (16, 2)}
    for name, (hidden, layers) in sizes.items():
        norm = float(name == "base")
        half = {"model.embed_tokens.weight": torch.full((10, hidden), 0.01).half()}
        half["model.norm.weight"] = torch.full((hidden,), norm).half()
        about = {**config(10), "hidden_size": hidden, "num_hidden_layers": layers}
        write_model(tmp_path / name, half, config=about)
    with pytest.raises(TensorsDoNotFit) as error:
        plan_apply_delta(tmp_path / "base", tmp_path / "delta", target=tmp_path / "out")
    first, *rest = error.value.context
    assert first == (
        "they are of different model sizes: the base has hidden_size 32, num_hidden_layers 4,"
        " the delta hidden_size 16, num_hidden_layers 2"
    )
    assert not [line for line in rest if "shards" in line]
    with pytest.raises(TensorsDoNotFit) as error:
        plan_make_delta(
            tmp_path / "base", tmp_path / "delta", tmp_path / "out", codec="add", new_rows="zero"
        )
    assert error.value.context[0] == first.replace("the delta", "the target")


def test_a_tensor_that_only_the_delta_has_needs_to_be_named(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", tensors(10, 0, 0.02, 1.0), config=config(10))
    extra = {**tensors(10, 1, 1e-4, 0.0), "model.extra.weight": torch.ones(3)}
    delta = write_model(tmp_path / "delta", extra, config=config(10))
    with pytest.raises(TensorsDoNotFit, match="1 problem") as caught:
        plan_apply_delta(base, delta, target=tmp_path / "out")
    assert caught.value.context == ("only the delta has model.extra.weight, F32 [3]",)
    job = plan_apply_delta(base, delta, target=tmp_path / "out", whole=["model.extra.*"])
    rules = {tensor.output.name: tensor.codec for tensor in job.plan.tensors}
    assert rules.pop("model.extra.weight") == "copy@1"
    assert set(rules.values()) == {"add@1"}


class TestKinds:
    def folders(self, tmp_path: Path) -> tuple[Path, Path]:
        model = write_model(tmp_path / "m", tensors(10, 0, 0.02, 1.0), config=config(10))
        delta = write_model(tmp_path / "d", tensors(10, 1, 1e-4, 1e-4), config=config(10))
        return model, delta

    def test_swapped_base_and_delta_are_called_swapped(self, tmp_path: Path) -> None:
        model, delta = self.folders(tmp_path)
        with pytest.raises(InputsSwapped, match="swapped"):
            plan_apply_delta(delta, model, target=tmp_path / "out")

    def test_a_model_as_delta_is_refused(self, tmp_path: Path) -> None:
        model, _ = self.folders(tmp_path)
        other = write_model(tmp_path / "o", tensors(10, 2, 0.02, 1.0), config=config(10))
        with pytest.raises(ModelGivenAsDelta, match="like a model"):
            plan_apply_delta(model, other, target=tmp_path / "out")

    def test_a_delta_as_base_is_refused(self, tmp_path: Path) -> None:
        _, delta = self.folders(tmp_path)
        other = write_model(tmp_path / "o", tensors(10, 2, 1e-4, 1e-4), config=config(10))
        with pytest.raises(DeltaGivenAsBase, match="like a delta"):
            plan_apply_delta(delta, other, target=tmp_path / "out")

    def test_who_insists_gets_the_sum(self, tmp_path: Path) -> None:
        model, _ = self.folders(tmp_path)
        other = write_model(tmp_path / "o", tensors(10, 2, 0.02, 1.0), config=config(10))
        apply_delta(model, other, target=tmp_path / "out", force_kind=True)
        base, delta = load(model), load(other)
        assert_same_bits(load(tmp_path / "out"), {n: base[n] + delta[n] for n in base})

    def test_norms_centred_at_zero_say_nothing(self, tmp_path: Path) -> None:
        gemma = {**config(10), "model_type": "gemma2"}
        base = write_model(tmp_path / "b", tensors(10, 0, 0.02, 0.0), config=gemma)
        delta = write_model(tmp_path / "d", tensors(10, 1, 1e-4, 0.0), config=gemma)
        assert plan_apply_delta(base, delta, target=tmp_path / "out").plan.tensors


def test_the_sums_of_alpacas_own_check_are_reproduced(vectors: Path, tmp_path: Path) -> None:
    alpaca = vectors / "alpaca_wdiff"
    sides = {side: alpaca / side for side in ("base", "delta")}
    apply_delta(sides["base"], sides["delta"], target=tmp_path / "out", new_rows="mean")
    inputs = {side: open_model(path) for side, path in sides.items()}
    found = sum_report(tmp_path / "out", None, inputs, threads=2)
    published = json.loads((alpaca / "expected" / "sums.json").read_text())
    assert found.float64 == pytest.approx(published["sum_without_inv_freq_float64"], abs=1e-9)
    with_buffers = found.float64 + found.inv_freq
    assert with_buffers == pytest.approx(published["sum_all_float64"], abs=1e-9)
    # Alpaca's tolerance is 0.01; float32 sums of another order agree far closer than that.
    naive = found.float32 + found.inv_freq
    assert naive == pytest.approx(published["sum_all_float32"], abs=1e-4)

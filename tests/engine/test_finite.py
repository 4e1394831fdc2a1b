"""Values that are no numbers are told before anything is published, some of them refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.adapters import make_adapter, make_llama
from tests.support.folders import copied, load, save, staging, write_model
from weightsmith.engine.options import Options
from weightsmith.errors import NotFinite
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.convert import convert
from weightsmith.ops.make_delta import make_delta
from weightsmith.ops.merge_lora import merge_lora

NAME = "model.layers.0.up.weight"
ALLOWED = Options(allow_nonfinite=True)


def weights(norm: float, *spoilt: float) -> dict[str, Tensor]:
    """A model's tensors, of two spans and little; its matrix begins with what is no number."""
    matrix = torch.full((1100, 1000), 0.5).half()
    matrix.view(-1)[: len(spoilt)] = torch.tensor(spoilt).half()
    norms = torch.full((8,), norm).half()
    return {"model.norm.weight": norms, NAME: matrix, "other": torch.ones(3).half()}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A sound base, and a delta with a NaN and two infinities."""
    write_model(tmp_path / "base", weights(1))
    spoilt = (float("nan"), float("inf"), float("-inf"))
    write_model(tmp_path / "delta", weights(0, *spoilt))
    return tmp_path / "base", tmp_path / "delta"


@pytest.mark.parametrize("dtype", ["delta", "float32"])
def test_a_delta_that_is_added_is_refused_by_name_and_nothing_is_published(
    dtype: Any, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(NotFinite, match="1 tensor") as caught:
        apply_delta(*pair, target=tmp_path / "out", dtype=dtype)
    assert caught.value.context == (f"{NAME} holds 1 NaN and 2 infinite",)
    assert not (tmp_path / "out").exists()


def test_who_insists_gets_it_and_is_told(pair: tuple[Path, Path], tmp_path: Path) -> None:
    done = apply_delta(*pair, target=tmp_path / "out", options=ALLOWED)
    (doubt,) = done.doubts
    assert doubt.startswith("delta ")
    assert f"{NAME} (1 NaN and 2 infinite)" in doubt
    assert torch.isnan(load(tmp_path / "out")[NAME].view(-1)[0])


def test_what_an_interrupted_run_kept_is_told_and_refused_too(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run was allowed to take it and came as far as the last step."""
    from weightsmith.engine.staging import Staging

    how: dict[str, Any] = {"target": tmp_path / "out", "max_shard_nbytes": 2_300_000}
    with monkeypatch.context() as patch:
        patch.setattr(Staging, "publish", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            apply_delta(*pair, **how, options=ALLOWED)
    assert staging(tmp_path / "out").exists()
    with pytest.raises(NotFinite):
        apply_delta(*pair, **how)
    done = apply_delta(*pair, **how, options=ALLOWED)
    assert done.kept
    assert any(NAME in doubt for doubt in done.doubts)


def test_a_base_that_holds_them_is_told_and_not_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "base", weights(1, float("nan")))
    write_model(tmp_path / "delta", weights(0))
    done = apply_delta(tmp_path / "base", tmp_path / "delta", target=tmp_path / "out")
    (doubt,) = done.doubts
    assert doubt.startswith("base ")
    (doubt,) = convert(tmp_path / "base", tmp_path / "copy").doubts
    assert f"{NAME} (1 NaN)" in doubt


def test_one_of_metas_files_that_holds_them_is_named(vectors: Path, tmp_path: Path) -> None:
    meta = copied(vectors / "meta_llama1_2shards" / "meta" / "13B", tmp_path / "13B")
    path = meta / "consolidated.01.pth"
    content = torch.load(path, weights_only=True)
    content["layers.0.feed_forward.w1.weight"].view(-1)[0] = float("nan")
    torch.save(content, path)
    (doubt,) = convert(meta, tmp_path / "out").doubts
    assert "mlp.gate_proj.weight (1 NaN)" in doubt
    assert "consolidated.01" in doubt


def test_a_cast_to_a_dtype_that_is_too_small_is_told(tmp_path: Path) -> None:
    write_model(tmp_path / "in", {"w": torch.tensor([1.0, 1e30, -1e30])})
    (doubt,) = convert(tmp_path / "in", tmp_path / "out", dtype="float16").doubts
    assert doubt == "values grew too large for their dtype: w (2 infinite)"


@pytest.mark.parametrize("codec", ["exact", "add"])
def test_an_exact_delta_restores_any_bits_and_an_added_one_is_told_of(
    codec: Any, tmp_path: Path
) -> None:
    base = write_model(tmp_path / "base", weights(1))
    target = write_model(tmp_path / "target", weights(1.5, float("nan"), float("inf")))
    made = make_delta(base, target, tmp_path / "delta", codec=codec)
    if codec == "add":
        assert any(NAME in doubt for doubt in made.doubts)
        return
    done = apply_delta(base, tmp_path / "delta", target=tmp_path / "out")
    assert done.doubts == ()
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (
        target / "model.safetensors"
    ).read_bytes()


def test_buffers_may_hold_what_they_like(tmp_path: Path) -> None:
    masked = torch.full((1, 1, 4, 4), float("-inf"))
    write_model(tmp_path / "in", {"h.0.attn.bias": masked, "w": torch.ones(2)})
    assert convert(tmp_path / "in", tmp_path / "out").doubts == ()


def test_an_adapter_is_looked_through_before_anything_is_written(tmp_path: Path) -> None:
    base = make_llama(tmp_path / "base")
    adapter = make_adapter(tmp_path / "lora", base)
    path = adapter / "adapter_model.safetensors"
    tensors = load(adapter)
    name = next(iter(tensors))
    tensors[name].view(-1)[0] = float("nan")
    save(path, tensors)
    with pytest.raises(NotFinite) as caught:
        merge_lora(base, [adapter], tmp_path / "out")
    assert caught.value.context == (f"{name} holds 1 NaN",)
    assert not staging(tmp_path / "out").exists()
    done = merge_lora(base, [adapter], tmp_path / "out", options=ALLOWED)
    assert done.doubts

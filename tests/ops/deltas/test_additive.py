"""Additive deltas: the format of 2023, made honestly, with its losses said and its base known."""

import os
import shutil
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors import safe_open

from tests.support.delta_models import weights
from tests.support.folders import CONFIG, contents, load, write_model
from tests.support.world import interrupt_after
from weightsmith import fs
from weightsmith.engine.options import Options
from weightsmith.errors import (
    DamagedInput,
    DtypeNotSummable,
    Mismatch,
    StagingOfAnotherPlan,
    TensorsDoNotFit,
    WrongBase,
)
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.make_delta import make_delta, plan_make_delta

BUFFER = "rotary_emb.inv_freq"


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture
def release(vectors: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A base of 2023 and the fine-tune that its delta was made from."""
    source = vectors / "vicuna_v1_1"
    target = tmp_path / "target"
    tensors = tensors_of(source / "target" / "expected.safetensors")
    write_model(target, {n: t for n, t in tensors.items() if BUFFER not in n})
    for path in (source / "target").glob("*.json"):
        shutil.copyfile(path, target / path.name)
    shutil.copytree(source / "base", tmp_path / "base")
    return tmp_path / "base", target


def test_the_delta_is_what_fastchat_makes(release: tuple[Path, Path], tmp_path: Path) -> None:
    base, target = release
    make_delta(base, target, tmp_path / "delta", codec="add")
    bases: dict[str, torch.Tensor] = {}
    for path in base.glob("*.bin"):
        bases |= torch.load(path, weights_only=True)
    made, wanted = load(tmp_path / "delta"), load(target)
    assert made.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(made[name], tensor - bases[name])


def test_the_loss_that_is_told_is_the_loss_that_happens(
    release: tuple[Path, Path], tmp_path: Path
) -> None:
    base, target = release
    made = make_delta(base, target, tmp_path / "delta", codec="add")
    assert made.loss is not None
    apply_delta(base, tmp_path / "delta", target=tmp_path / "out")
    wanted, found = load(target), load(tmp_path / "out")
    differing = sum(
        int((found[name].view(torch.int16) != each.view(torch.int16)).sum())
        for name, each in wanted.items()
    )
    largest = max(
        float((found[name].double() - each.double()).abs().max()) for name, each in wanted.items()
    )
    assert made.loss.whole.changed == differing
    assert made.loss.whole.largest == pytest.approx(largest)
    assert 0.02 < made.loss.whole.share < 0.05  # the README of the vectors says 3.2 %
    assert sum(each.changed for each in made.loss.tensors.values()) == differing


def test_a_wrong_base_is_refused_where_a_delta_of_2023_could_not_know(
    release: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, target = release
    make_delta(base, target, tmp_path / "delta", codec="add", base_id="org/llama@1")
    path = min(base.glob("*.bin"))
    tensors = torch.load(path, weights_only=True)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 2)
    tensors[name][0, 0] += 0.5
    torch.save(tensors, path)
    for glance in (2**26, 0):
        monkeypatch.setattr("weightsmith.sources.exact._GLANCE_NBYTES", glance)
        with pytest.raises(WrongBase) as caught:
            apply_delta(base, tmp_path / "delta", target=tmp_path / "out")
        assert isinstance(caught.value, Mismatch)
        assert caught.value.context == (name,)
        assert caught.value.hint_text == "it was made from this one: `base=org/llama@1`"
        assert not (tmp_path / "out").exists()
        shutil.rmtree(tmp_path / ".out.weightsmith-partial", ignore_errors=True)


def test_a_flipped_bit_in_the_delta_is_found(release: tuple[Path, Path], tmp_path: Path) -> None:
    base, target = release
    make_delta(base, target, tmp_path / "delta", codec="add")
    path = tmp_path / "delta" / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 0x40  # in an exponent; a small step may vanish when the sum is rounded
    path.write_bytes(raw)
    with pytest.raises(DamagedInput):
        apply_delta(base, tmp_path / "delta", target=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("new_rows", ["zero", "mean"])
def test_new_vocabulary_rows_follow_the_policy_there_and_back(
    vectors: Path, tmp_path: Path, new_rows: Literal["zero", "mean"]
) -> None:
    source = vectors / "alpaca_wdiff"
    target = write_model(
        tmp_path / "target", tensors_of(source / "target" / "expected.safetensors")
    )
    for path in (source / "target").glob("*.json"):
        shutil.copyfile(path, target / path.name)
    shutil.copytree(source / "base", tmp_path / "base")
    make_delta(tmp_path / "base", target, tmp_path / "delta", codec="add", new_rows=new_rows)
    apply_delta(tmp_path / "base", tmp_path / "delta", target=tmp_path / "out")
    wanted, found = load(target), load(tmp_path / "out")
    for name in found:
        assert torch.allclose(found[name], wanted[name], atol=1e-6)
    if new_rows == "mean":
        theirs = load_bins(source / "delta")
        ours = load(tmp_path / "delta")
        for name, tensor in ours.items():
            assert torch.allclose(tensor, theirs[name], atol=1e-6)


def load_bins(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.bin"):
        tensors |= torch.load(path, weights_only=True)
    return tensors


def test_a_finished_additive_delta_is_left(release: tuple[Path, Path], tmp_path: Path) -> None:
    made = make_delta(*release, tmp_path / "delta", codec="add", options=Options(workers=1))
    again = make_delta(*release, tmp_path / "delta", codec="add", options=Options(workers=3))
    assert not made.already_done
    assert again.already_done


EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_second_copy_of_tied_weights_that_the_base_lacks_is_left(
    tmp_path: Path, suffix: str
) -> None:
    base = write_model(tmp_path / "base", {EMBEDDING: torch.ones(6, 4), "w": torch.ones(3)})
    embedding = weights(6, 4, dtype=torch.float32)
    tensors = {EMBEDDING: embedding, "w": weights(3, dtype=torch.float32), HEAD: embedding.clone()}
    if suffix == "bin":
        tensors[HEAD] = embedding
    target = write_model(tmp_path / "target", tensors, suffix=suffix)
    job = plan_make_delta(base, target, tmp_path / "delta", codec="add")
    assert f"{HEAD} is not written: it is the input embedding too" in job.plan.notes
    made = make_delta(base, target, tmp_path / "delta", codec="add")
    assert made.loss is not None
    assert made.loss.whole.numel == 6 * 4 + 3
    apply_delta(base, tmp_path / "delta", target=tmp_path / "out")
    out = load(tmp_path / "out")
    assert out.keys() == {EMBEDDING, "w"}
    assert torch.allclose(out[EMBEDDING], embedding, atol=1e-6)


@pytest.mark.parametrize("config", [{}, {"tie_word_embeddings": False}])
def test_a_head_that_is_not_tied_is_refused_with_a_way_out(
    tmp_path: Path, config: dict[str, bool]
) -> None:
    base = write_model(tmp_path / "base", {EMBEDDING: torch.ones(6, 4)})
    head = torch.full((6, 4), 2.0 if config else 3.0)
    tensors = {EMBEDDING: torch.full((6, 4), 2.0), HEAD: head}
    target = write_model(tmp_path / "target", tensors, config={**CONFIG, **config})
    with pytest.raises(TensorsDoNotFit) as caught:
        make_delta(base, target, tmp_path / "delta", codec="add")
    assert caught.value.context == (f"only the target has {HEAD}, F32 [6, 4]",)
    assert "codec=exact" in caught.value.hint_text


def test_what_additive_deltas_cannot_hold_is_refused_with_a_way_out(tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", {"w": torch.ones(2, 3), "b": torch.ones(3)})
    target = write_model(tmp_path / "target", {"w": torch.ones(2, 4), "c": torch.ones(3)})
    with pytest.raises(TensorsDoNotFit) as caught:
        make_delta(base, target, tmp_path / "delta", codec="add")
    assert "codec=exact" in caught.value.hint_text
    assert str(caught.value) == f"base {base} and target {target} do not fit: 3 problems"
    assert caught.value.context == (
        "only the target has c, F32 [3]",
        "only the base has b, F32 [3]",
        "shapes differ in w: base [2, 3], target [2, 4]",
    )
    flags = write_model(tmp_path / "flags", {"w": torch.ones(2, dtype=torch.bool)})
    other = write_model(tmp_path / "other", {"w": torch.zeros(2, dtype=torch.bool)})
    with pytest.raises(DtypeNotSummable) as refused:
        make_delta(flags, other, tmp_path / "delta", codec="add")
    assert "codec=exact" in refused.value.hint_text


def test_interrupted_it_goes_on_with_the_files_that_are_done(
    release: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, target = release
    monkeypatch.setattr("weightsmith.ops.make_delta.MAX_SHARD_NBYTES", 30_000)
    make_delta(base, target, tmp_path / "straight", codec="add")
    steps = 9  # three for the plan, and three for each of two files
    with monkeypatch.context() as patch:
        patch.setattr(fs, "on_durable_step", interrupt_after(steps))
        with pytest.raises(KeyboardInterrupt):
            make_delta(base, target, tmp_path / "delta", codec="add")
    assert not (tmp_path / "delta").exists()
    path = min(base.glob("*.bin"))
    stat = path.stat()
    os.utime(path, ns=(1, 1))
    with pytest.raises(StagingOfAnotherPlan, match="an input changed since"):
        make_delta(base, target, tmp_path / "delta", codec="add")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert make_delta(base, target, tmp_path / "delta", codec="add").kept == 2
    made, straight = contents(tmp_path / "delta"), contents(tmp_path / "straight")
    assert made == straight
    assert len([name for name in made if name.endswith(".safetensors")]) > 3

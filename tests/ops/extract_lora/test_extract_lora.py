"""What a fine-tune changed comes back as an adapter that peft loads, with its exact rank."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.support.adapters import load_model, make_adapter, make_gpt2, make_llama
from tests.support.folders import contents, load, write_model
from tests.support.low_rank_matrices import write_merged
from tests.support.memory import HAS_PEAK, MIB, peak_nbytes
from weightsmith.engine.options import Options
from weightsmith.errors import (
    BaseIsTarget,
    NothingToExtract,
    RankNotFound,
    RankTooLarge,
    TargetExists,
)
from weightsmith.ops.extract_lora import ExtractedLora, extract_lora, plan_extract_lora
from weightsmith.ops.merge_lora import merge_lora

SIZES = {"hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 2}
TOKENS = torch.arange(3, 27)[None]


def llama(folder: Path, dtype: torch.dtype = torch.bfloat16, **config: Any) -> Path:
    return make_llama(folder, dtype=dtype, **(SIZES | config))


def tuned(tmp_path: Path, base: Path, **adapter: Any) -> Path:
    """The base with a random adapter merged into it."""
    lora = make_adapter(tmp_path / "trained", base, **adapter)
    merge_lora(base, lora, tmp_path / "target")
    return tmp_path / "target"


def rewritten(target: Path, changes: dict[str, Tensor]) -> Path:
    """The target with other tensors."""
    return write_model(target, load(target) | changes, config=config_of(target))


def config_of(folder: Path, name: str = "config.json") -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / name).read_bytes())
    return config


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval()(TOKENS).logits
    return found


def with_peft(base: Path, adapter: Path) -> Any:
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # peft warns of tensors that find no place
        warnings.filterwarnings("ignore", category=FutureWarning)
        return PeftModel.from_pretrained(load_model(base, dtype=torch.float32), str(adapter))


def check_logits(base: Path, target: Path, adapter: Path) -> None:
    """The adapter on its base computes what the target does, up to the target's rounding."""
    expected = logits(load_model(target, dtype=torch.float32))
    before = (logits(load_model(base, dtype=torch.float32)) - expected).abs().max()
    model = with_peft(base, adapter)
    assert (logits(model) - expected).abs().max() < before / 20
    assert (logits(model.merge_and_unload()) - expected).abs().max() < before / 20


def errors(made: ExtractedLora) -> dict[str, float]:
    return {each.name: each.error for each in made.tensors}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_rank_is_found_and_peft_computes_what_the_target_does(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    base = llama(tmp_path / "base", dtype)
    target = tuned(tmp_path, base, r=3, target_modules=["q_proj", "v_proj", "down_proj"])
    made = extract_lora(base, target, tmp_path / "lora")
    assert {each.rank for each in made.tensors} == {3}
    assert len(made.tensors) == 6
    assert max(errors(made).values()) < 0.02
    config = config_of(tmp_path / "lora", "adapter_config.json")
    assert (config["r"], config["lora_alpha"], config["rank_pattern"]) == (3, 3, {})
    assert config["target_modules"] == ["down_proj", "q_proj", "v_proj"]
    check_logits(base, target, tmp_path / "lora")


def test_merging_it_back_leaves_little_and_what_is_told(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    target = tuned(tmp_path, base, r=2)
    made = extract_lora(base, target, tmp_path / "lora")
    merge_lora(base, tmp_path / "lora", tmp_path / "merged")
    merged, wanted = load(tmp_path / "merged"), load(target)
    for each in made.tensors:
        differing = (merged[each.name] != wanted[each.name]).sum().item()
        assert each.left.changed == differing
        assert each.left.share < 0.1 < each.change.share
    assert made.left.changed == sum(each.left.changed for each in made.tensors)


def test_a_target_of_another_dtype_is_compared_in_that(tmp_path: Path) -> None:
    base = llama(tmp_path / "base", torch.float32)
    lora = make_adapter(tmp_path / "trained", base, r=2)
    merge_lora(base, lora, tmp_path / "target", dtype="bfloat16")
    made = extract_lora(base, tmp_path / "target", tmp_path / "lora")
    found = {each.name: each for each in made.tensors}
    assert found["model.layers.0.self_attn.q_proj.weight"].rank == 2
    assert found["model.layers.0.self_attn.q_proj.weight"].left.share < 0.1


def test_modules_with_another_rank_are_named_in_the_config(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    pattern = {"layers.1.self_attn.q_proj": 5}
    target = tuned(tmp_path, base, r=2, rank_pattern=pattern, alpha_pattern=pattern)
    extract_lora(base, target, tmp_path / "lora")
    config = config_of(tmp_path / "lora", "adapter_config.json")
    assert config["rank_pattern"] == {"model.layers.1.self_attn.q_proj": 5}
    assert config["alpha_pattern"] == config["rank_pattern"]
    check_logits(base, target, tmp_path / "lora")


def test_modules_are_named_in_full_where_not_all_of_their_name_changed(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    target = tuned(tmp_path, base, r=2, target_modules=["q_proj"], layers_to_transform=[1])
    extract_lora(base, target, tmp_path / "lora")
    config = config_of(tmp_path / "lora", "adapter_config.json")
    assert config["target_modules"] == ["model.layers.1.self_attn.q_proj"]
    check_logits(base, target, tmp_path / "lora")


def test_norms_and_embeddings_are_stored_whole(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    target = tuned(tmp_path, base, r=2)
    tensors = load(target)
    changes = {
        name: tensor + torch.randn_like(tensor) * 0.05
        for name, tensor in tensors.items()
        if name in {"model.norm.weight", "model.embed_tokens.weight", "lm_head.weight"}
    }
    rewritten(target, changes)
    made = extract_lora(base, target, tmp_path / "lora")
    config = config_of(tmp_path / "lora", "adapter_config.json")
    assert config["modules_to_save"] == ["lm_head", "model.embed_tokens", "model.norm"]
    assert all(errors(made)[name] == 0 for name in changes)
    check_logits(base, target, tmp_path / "lora")


def test_an_embedding_that_changed_by_a_product_gets_factors(tmp_path: Path) -> None:
    base = llama(tmp_path / "base", vocab_size=300)
    target = tuned(tmp_path, base, r=2, target_modules=["embed_tokens", "lm_head", "q_proj"])
    made = extract_lora(base, target, tmp_path / "lora")
    assert {each.rank for each in made.tensors} == {2}
    names = {*load_file(tmp_path / "lora" / "adapter_model.safetensors")}
    assert "base_model.model.model.embed_tokens.lora_embedding_A" in names
    check_logits(base, target, tmp_path / "lora")


def test_a_tied_embedding_is_stored_for_both_sides(tmp_path: Path) -> None:
    base = llama(tmp_path / "base", tie_word_embeddings=True)
    target = tuned(tmp_path, base, r=2)
    embedding = load(target)["model.embed_tokens.weight"]
    rewritten(target, {"model.embed_tokens.weight": embedding + 0.05 * torch.randn_like(embedding)})
    made = extract_lora(base, target, tmp_path / "lora")
    config = config_of(tmp_path / "lora", "adapter_config.json")
    assert config["modules_to_save"] == ["lm_head", "model.embed_tokens"]
    assert errors(made)["model.embed_tokens.weight"] == 0
    check_logits(base, target, tmp_path / "lora")


def test_layers_that_store_their_weight_turned_are_extracted_too(tmp_path: Path) -> None:
    base = make_gpt2(tmp_path / "base", dtype=torch.float16)
    target = tuned(tmp_path, base, r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    made = extract_lora(base, target, tmp_path / "lora")
    assert {each.rank for each in made.tensors} == {2}
    assert config_of(tmp_path / "lora", "adapter_config.json")["fan_in_fan_out"] is True
    check_logits(base, target, tmp_path / "lora")


def full_fine_tune(tmp_path: Path) -> tuple[Path, Path]:
    base = llama(tmp_path / "base", torch.float16)
    target = {
        name: (tensor.float() + torch.randn(tensor.shape) * 0.01).half()
        if "proj" in name
        else tensor
        for name, tensor in load(base).items()
    }
    return base, write_model(tmp_path / "target", target, config=config_of(base))


def test_a_full_fine_tune_has_no_rank_and_is_cut_to_one_that_is_asked_for(tmp_path: Path) -> None:
    base, target = full_fine_tune(tmp_path)
    with pytest.raises(RankNotFound) as caught:
        extract_lora(base, target, tmp_path / "lora")
    assert "model.layers.0.self_attn.q_proj.weight" in caught.value.context
    assert not (tmp_path / "lora").exists()
    small = extract_lora(base, target, tmp_path / "small", rank=8)
    large = extract_lora(base, target, tmp_path / "large", rank=64)
    for name, error in errors(small).items():
        assert errors(large)[name] < error
    # The largest part that rank 8 can hold, as the decomposition of the whole change has it.
    name = "model.layers.0.self_attn.q_proj.weight"
    sizes = torch.linalg.svdvals(load(target)[name].double() - load(base)[name].double())
    best = (sizes[8:].square().sum() / sizes.square().sum()).sqrt().item()
    assert best <= errors(small)[name] < best * 1.02
    with_peft(base, tmp_path / "small")


def test_with_a_rank_what_has_less_keeps_its_own(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    target = tuned(tmp_path, base, r=2)
    made = extract_lora(base, target, tmp_path / "lora", rank=16)
    assert {each.rank for each in made.tensors} == {2}
    cut = extract_lora(base, target, tmp_path / "cut", rank=1)
    assert {each.rank for each in cut.tensors} == {1}
    assert min(errors(cut).values()) > 0.1


def test_what_no_adapter_can_hold_is_named(tmp_path: Path) -> None:
    base = llama(tmp_path / "base", attention_bias=True)
    target = tuned(tmp_path, base, r=2, target_modules=["q_proj"])
    tensors = load(target)
    changes = {
        "model.layers.0.self_attn.q_proj.bias": tensors["model.layers.0.self_attn.q_proj.bias"] + 1,
        "model.layers.0.self_attn.o_proj.bias": tensors["model.layers.0.self_attn.o_proj.bias"] + 1,
        "model.extra": torch.ones(3),
        "model.embed_tokens.weight": torch.cat([tensors["model.embed_tokens.weight"]] * 2),
    }
    rewritten(target, changes)
    job = plan_extract_lora(base, target, tmp_path / "lora")
    left = [note for note in job.plan.notes if note.startswith("left out: ")]
    assert [note.split(",")[0].removeprefix("left out: ") for note in sorted(left)] == [
        "model.embed_tokens.weight",
        "model.extra",
        "model.layers.0.self_attn.q_proj.bias",
    ]
    made = job.run()
    assert errors(made)["model.layers.0.self_attn.o_proj.bias"] == 0
    assert errors(made)["model.layers.0.self_attn.q_proj.bias"] == 1
    with_peft(base, tmp_path / "lora")


def test_a_matrix_that_became_one_of_8_bits_is_left_out_by_name(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    target = tuned(tmp_path, base, r=2, target_modules=["q_proj"])
    name = "model.layers.0.mlp.up_proj.weight"
    rewritten(target, {name: load(target)[name].to(torch.float8_e4m3fn)})
    notes = plan_extract_lora(base, target, tmp_path / "lora").plan.notes
    assert [note for note in notes if name in note] == [
        f"left out: {name}, it is F8_E4M3, which no factors change"
    ]


def test_where_nothing_changed_there_is_nothing_to_extract(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    same = write_model(tmp_path / "same", load(base), config=config_of(base))
    with pytest.raises(NothingToExtract):
        extract_lora(base, same, tmp_path / "lora")
    with pytest.raises(BaseIsTarget):
        extract_lora(base, base, tmp_path / "lora")
    norm = load(base)["model.norm.weight"]
    rewritten(same, {"model.norm.weight": norm + 1})
    with pytest.raises(NothingToExtract):
        extract_lora(base, same, tmp_path / "lora")
    assert not (tmp_path / "lora").exists()


def test_zeros_of_another_sign_are_no_change(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    tensors = load(base)
    tensors["model.embed_tokens.weight"][3] = -0.0
    write_model(base, tensors, config=config_of(base))
    target = tuned(tmp_path, base, r=2)
    rewritten(target, {"model.embed_tokens.weight": tensors["model.embed_tokens.weight"] + 0})
    made = extract_lora(base, target, tmp_path / "lora")
    assert "model.embed_tokens.weight" not in errors(made)
    assert config_of(tmp_path / "lora", "adapter_config.json")["modules_to_save"] is None


WORK = """
import sys
from pathlib import Path
from weightsmith.engine.options import Options
from weightsmith.ops.extract_lora import extract_lora
folder = Path(sys.argv[1])
options = Options(workers=1)
extract_lora(folder / "base", folder / "target", folder / "lora", options=options)
extract_lora(folder / "base", folder / "target", folder / "cut", rank=4, options=options)
"""


@pytest.mark.slow
@HAS_PEAK
def test_memory_does_not_grow_with_the_matrix(tmp_path: Path) -> None:
    """But for its factors, of which the left one has 32 bytes a row.

    Peaks of one and the same matrix differ by up to 40 MiB; the larger one has 192 MiB more.
    """
    found = {}
    for rows in (16 * 1024, 64 * 1024):  # of both as many rows are looked at
        write_merged(tmp_path / str(rows), rows)
        found[rows] = peak_nbytes(WORK, tmp_path / str(rows))
    assert found[64 * 1024] < found[16 * 1024] + 80 * MIB


@pytest.mark.parametrize("rank", [0, -1, 513])
def test_a_rank_that_no_adapter_has_is_refused(tmp_path: Path, rank: int) -> None:
    with pytest.raises(RankTooLarge):
        plan_extract_lora(tmp_path / "base", tmp_path / "target", tmp_path / "lora", rank=rank)


def test_the_same_adapter_is_made_by_any_number_of_workers_and_made_once(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    target = tuned(tmp_path, base, r=2)
    for workers in (1, 3):
        folder = tmp_path / f"lora-{workers}"
        extract_lora(base, target, folder, options=Options(workers=workers))
    assert contents(tmp_path / "lora-1") == contents(tmp_path / "lora-3")
    again = extract_lora(base, target, tmp_path / "lora-1")
    assert again.already_done
    assert max(errors(again).values()) < 0.02
    with pytest.raises(TargetExists):
        extract_lora(base, target, tmp_path / "lora-1", rank=1)

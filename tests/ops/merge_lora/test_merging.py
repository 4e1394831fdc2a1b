"""Merges beside what peft can be asked: experts, old releases, files beside the weights, runs."""

import json
import platform
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.support.adapters import edit_config, make_adapter, make_llama, write_adapter
from tests.support.folders import bits, load
from weightsmith.engine.manifest import read_manifest
from weightsmith.engine.options import Options
from weightsmith.engine.receipts import machine
from weightsmith.errors import StagingOfAnotherPlan, TargetExists
from weightsmith.ops.job import needs
from weightsmith.ops.merge_lora import merge_lora, plan_merge_lora

CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 8,
    "lora_alpha": 16,
    "fan_in_fan_out": False,
    "target_modules": ["q_proj", "v_proj"],
}


class Expert(nn.Module):
    """A Mixtral's expert, as its files store it."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2 = nn.Linear(40, 70, bias=False), nn.Linear(70, 40, bias=False)


class Experts(nn.Module):
    """A router and experts, each a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(40, 3, bias=False)
        self.experts = nn.ModuleList(Expert() for _ in range(3))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_llama(tmp_path / "base", dtype=torch.float16)


@pytest.fixture
def adapter(tmp_path: Path, base: Path) -> Path:
    return make_adapter(tmp_path / "adapter", base)


def same(folder: Path, expected: dict[str, Tensor]) -> bool:
    found = load(folder)
    return found.keys() == expected.keys() and all(
        torch.equal(bits(found[name]), bits(tensor)) for name, tensor in expected.items()
    )


def test_experts_that_are_stored_one_by_one_each_get_their_own_change(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = Experts()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    (tmp_path / "base").mkdir()
    save_file(weights, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    config = LoraConfig(r=4, lora_alpha=4, target_modules=["w1", "w2", "gate"])
    peft = get_peft_model(model, config)
    for parameter in peft.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn_like(parameter) * 0.1
    peft.save_pretrained(str(tmp_path / "adapter"))
    merge_lora(tmp_path / "base", [tmp_path / "adapter"], tmp_path / "out", rounding="peft")
    assert same(tmp_path / "out", peft.merge_and_unload().state_dict())
    changed = [
        n for n, tensor in load(tmp_path / "out").items() if not torch.equal(tensor, weights[n])
    ]
    assert len(changed) == 7


def test_an_adapter_of_2023_is_merged_from_its_torch_file(tmp_path: Path, base: Path) -> None:
    """Keys and config as alpaca-lora, gpt4all-lora and Guanaco published them."""
    folder = tmp_path / "alpaca-lora-7b"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(
        json.dumps(CONFIG | {"enable_lora": None, "merge_weights": False, "lora_alpha": 16.0})
    )
    torch.manual_seed(3)
    module = "model.layers.0.self_attn.q_proj"
    a, b = torch.randn(8, 48).half(), torch.randn(48, 8).half()
    names = [f"base_model.model.{module}.lora_{side}.weight" for side in "AB"]
    torch.save(dict(zip(names, (a, b), strict=True)), folder / "adapter_model.bin")
    merge_lora(base, [folder], tmp_path / "out")
    weights = load(base)
    weights[f"{module}.weight"] = (
        weights[f"{module}.weight"].float() + (b.float() @ a.float()) * 2.0
    ).half()
    assert same(tmp_path / "out", weights)


def test_an_adapters_own_name_in_its_keys_changes_nothing(
    tmp_path: Path, base: Path, adapter: Path
) -> None:
    merge_lora(base, [adapter], tmp_path / "out")
    tensors = load(adapter)
    for words, name in ((".lora_A.", ".lora_A.default."), ("base_model.model.model.", "model.")):
        renamed = {key.replace(words, name): tensor for key, tensor in tensors.items()}
        assert renamed.keys() != tensors.keys()
        write_adapter(adapter, renamed)
        other = tmp_path / f"out{name}"
        merge_lora(base, [adapter], other)
        assert same(other, load(tmp_path / "out"))


def test_the_result_may_have_another_dtype(tmp_path: Path, base: Path, adapter: Path) -> None:
    merge_lora(base, [adapter], tmp_path / "out", dtype="float32")
    found, before = load(tmp_path / "out"), load(base)
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    name = "model.layers.0.self_attn.k_proj.weight"
    assert torch.equal(found[name], before[name].float())
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"


# --- the files beside the weights -----------------------------------------------------------------


def write_tokenizer(folder: Path, owner: str) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text(json.dumps({"owner": owner}))


def owners(folder: Path) -> dict[str, str]:
    """Whose each tokenizer file is."""
    names = (
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "tokenizer.model",
    )
    found = [folder / name for name in names if (folder / name).exists()]
    return {path.name: json.loads(path.read_text())["owner"] for path in found}


def test_the_tokenizer_is_the_last_adapters_that_brings_one(
    tmp_path: Path, base: Path, adapter: Path
) -> None:
    write_tokenizer(base, "base")
    (base / "tokenizer.model").write_text('{"owner": "base"}')
    others = [make_adapter(tmp_path / name, base) for name in ("second", "third")]
    merge_lora(base, [adapter, *others], tmp_path / "none")
    assert set(owners(tmp_path / "none").values()) == {"base"}
    write_tokenizer(adapter, "first")
    write_tokenizer(others[0], "second")
    (others[1] / "special_tokens_map.json").write_text('{"owner": "third"}')
    job = plan_merge_lora(base, [adapter, *others], tmp_path / "out")
    assert "lora-3 brings special_tokens_map.json and no vocabulary: not used" in job.plan.notes
    merge_lora(base, [adapter, *others], tmp_path / "out")
    assert owners(tmp_path / "out") == {
        "tokenizer.json": "second",
        "tokenizer_config.json": "second",
    }


@pytest.mark.parametrize("where", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_tokenizer_without_a_chat_template_leaves_the_bases(
    where: str, tmp_path: Path, base: Path, adapter: Path
) -> None:
    write_tokenizer(base, "base")
    write_tokenizer(adapter, "adapter")
    template = "{{ messages }}"
    if where.endswith(".json"):
        (base / where).write_text(json.dumps({"owner": "base", "chat_template": template}))
    else:
        (base / where).write_text(template)
    job = plan_merge_lora(base, [adapter], tmp_path / "out")
    assert any("without a chat template: the base's stays" in note for note in job.plan.notes)
    merge_lora(base, [adapter], tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert settings["owner"] == "adapter"
    if where.endswith(".json"):
        assert settings["chat_template"] == template
    else:
        assert (tmp_path / "out" / where).read_text() == template
    # With a template of its own the adapter's tokenizer is whole.
    (adapter / "chat_template.jinja").write_text("the adapter's")
    merge_lora(base, [adapter], tmp_path / "own", repair=False)
    assert (tmp_path / "own" / "chat_template.jinja").read_text() == "the adapter's"
    assert "chat_template" not in json.loads(
        (tmp_path / "own" / "tokenizer_config.json").read_text()
    )


def test_known_faults_of_its_files_are_mended(tmp_path: Path, base: Path, adapter: Path) -> None:
    write_tokenizer(base, "base")
    (base / "chat_template.jinja").write_text("{{ messages }}")
    job = plan_merge_lora(base, [adapter], tmp_path / "out")
    assert "template-only-in-file" in job.plan.repairs
    assert plan_merge_lora(base, [adapter], tmp_path / "out", repair=False).plan.repairs == ()


def test_all_else_is_the_bases_and_nothing_the_adapters(
    tmp_path: Path, base: Path, adapter: Path
) -> None:
    (base / "README.md").write_text("the base")
    (adapter / "README.md").write_text("the adapter")
    merge_lora(base, [adapter], tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_text() == "the base"
    assert (tmp_path / "out" / "config.json").read_bytes() == (base / "config.json").read_bytes()
    assert not list((tmp_path / "out").glob("adapter*"))


# --- runs -----------------------------------------------------------------------------------------


def test_no_byte_depends_on_workers_or_shards_or_memory_mode(
    tmp_path: Path, base: Path, adapter: Path
) -> None:
    merge_lora(base, [adapter], tmp_path / "one", options=Options(workers=1))
    merge_lora(base, [adapter], tmp_path / "three", options=Options(workers=3, low_cpu_mem=True))
    merge_lora(base, [adapter], tmp_path / "shards", max_shard_nbytes=9_000)
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("one", "three")
    ]
    assert files[0] == files[1]
    assert same(tmp_path / "shards", load(tmp_path / "one"))
    fingerprints = [read_manifest(tmp_path / name) for name in ("one", "shards")]
    assert len({manifest.fingerprint for manifest in fingerprints if manifest}) == 1


def test_the_plan_counts_the_memory_of_the_factors(
    tmp_path: Path, base: Path, adapter: Path
) -> None:
    job = plan_merge_lora(base, [adapter], tmp_path / "out")
    one, three = (needs(job, Options(workers=workers)).memory_nbytes for workers in (1, 3))
    large = make_adapter(tmp_path / "large", base, r=4000)
    more = plan_merge_lora(base, [large], tmp_path / "out")
    factors = 4 * 4000 * (48 + 48)
    assert needs(more, Options(workers=1)).memory_nbytes - one > factors
    assert needs(more, Options(workers=3)).memory_nbytes - three > 3 * factors


def test_the_same_merge_again_is_already_done_and_another_setting_is_not(
    tmp_path: Path, base: Path, adapter: Path
) -> None:
    target = tmp_path / "out"
    assert not merge_lora(base, [adapter], target).already_done
    assert merge_lora(base, [adapter], target).already_done
    edit_config(adapter, lora_alpha=9)
    with pytest.raises(TargetExists):
        merge_lora(base, [adapter], target)


def test_work_of_another_setting_is_not_continued(
    tmp_path: Path, base: Path, adapter: Path
) -> None:
    job = plan_merge_lora(base, [adapter], tmp_path / "out")
    staging = tmp_path / ".out.weightsmith-partial"
    staging.mkdir()
    (staging / "plan.json").write_bytes(job.plan.to_bytes())
    with pytest.raises(StagingOfAnotherPlan):
        merge_lora(base, [adapter], tmp_path / "out", rounding="peft")


def test_receipts_name_the_type_of_processor_where_a_product_was_made(
    tmp_path: Path, base: Path, adapter: Path
) -> None:
    made_by = machine(plan_merge_lora(base, [adapter], tmp_path / "out").plan)
    assert made_by
    if sys.platform == "linux" and platform.machine() == "x86_64":
        names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        assert made_by.endswith(names[0].strip())
    write_adapter(adapter, {"base_model.model.model.norm.weight": torch.ones(48).half()})
    assert not machine(plan_merge_lora(base, [adapter], tmp_path / "out").plan)

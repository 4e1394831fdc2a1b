"""A classifier that an adapter brings takes the place of the base's output layer."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.adapters import write_adapter
from tests.support.folders import load
from weightsmith.errors import AdapterDoesNotFit, LabelsDoNotFit, LabelsUnused
from weightsmith.ops.adapters.labels import card_labels
from weightsmith.ops.merge_lora import merge_lora, plan_merge_lora


@pytest.fixture
def vector(vectors: Path) -> Path:
    """A LLaMA and an adapter with a classifier of three labels."""
    return vectors / "merge" / "head_seqcls_llama"


def merged_config(vector: Path, target: Path, **settings: Any) -> dict[str, Any]:
    merge_lora(vector / "base", [vector / "adapter"], target, **settings)
    config: dict[str, Any] = json.loads((target / "config.json").read_text())
    return config


def with_labels(vector: Path, folder: Path, **files: str) -> Path:
    """The vector with files added to its adapter."""
    shutil.copytree(vector, folder)
    for name, text in files.items():
        (folder / "adapter" / name.replace("_json", ".json").replace("_md", ".md")).write_text(text)
    return folder


@pytest.mark.parametrize(
    "vector_name, architecture",
    [
        ("head_seqcls_llama", "LlamaForSequenceClassification"),
        ("head_seqcls_qwen2_tied", "Qwen2ForSequenceClassification"),
        ("head_tokcls_llama", "LlamaForTokenClassification"),
    ],
)
def test_the_config_names_the_class_of_the_task(
    vector_name: str, architecture: str, vectors: Path, tmp_path: Path
) -> None:
    config = merged_config(vectors / "merge" / vector_name, tmp_path / "out")
    assert config["architectures"] == [architecture]
    assert config["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}
    assert config["label2id"] == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}


def test_transformers_loads_the_classifier_and_its_head(vector: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    config = merged_config(vector, tmp_path / "out", labels=["good", "bad", "ugly"])
    assert config["id2label"] == {"0": "good", "1": "bad", "2": "ugly"}
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    head = load_file(vector / "adapter" / "adapter_model.safetensors")
    assert torch.equal(model.score.weight, head["base_model.model.score.weight"])
    assert "lm_head.weight" not in load(tmp_path / "out")


def test_labels_come_from_the_adapters_config_or_its_card(vector: Path, tmp_path: Path) -> None:
    named = json.dumps({"id2label": {"0": "x", "1": "y", "2": "z"}})
    config = with_labels(vector, tmp_path / "config", config_json=named)
    assert merged_config(config, tmp_path / "a")["id2label"] == {"0": "x", "1": "y", "2": "z"}
    card = with_labels(vector, tmp_path / "card", README_md="---\nlabels: [p, q, r]\n---\nText\n")
    assert merged_config(card, tmp_path / "b")["id2label"] == {"0": "p", "1": "q", "2": "r"}
    # As many as there are rows, or none: half of a list would name the wrong ones.
    short = with_labels(vector, tmp_path / "short", README_md="---\nlabels: [p, q]\n---\n")
    assert merged_config(short, tmp_path / "c")["id2label"]["0"] == "LABEL_0"


@pytest.mark.parametrize(
    "card, labels",
    [
        ("---\nid2label:\n  0: no\n  1: 'yes'\n---\n", ["no", "yes"]),
        ("---\nlabels:\n- one\n- two\n---\n", ["one", "two"]),
        ('---\nlabels: ["a", b]\n---\n', ["a", "b"]),
        ("---\nlicense: mit\n---\nlabels: [a, b]\n", []),
        ("labels: [a, b]\n", []),
    ],
)
def test_a_cards_front_matter_may_list_labels(card: str, labels: list[str]) -> None:
    assert card_labels(card) == labels


@pytest.mark.parametrize("labels", [["a", "b"], ["a", "b", "b"]])
def test_each_row_needs_a_label_of_its_own(labels: list[str], vector: Path, tmp_path: Path) -> None:
    with pytest.raises(LabelsDoNotFit, match="needs 3 different labels"):
        merged_config(vector, tmp_path / "out", labels=labels)
    assert not (tmp_path / "out").exists()


def test_labels_without_a_classifier_are_refused(vectors: Path, tmp_path: Path) -> None:
    vector = vectors / "merge" / "set_dora"
    with pytest.raises(LabelsUnused, match=r"labels were given \(a, b\)"):
        plan_merge_lora(vector / "base", [vector / "adapter"], tmp_path / "out", labels=["a", "b"])


def test_the_plan_says_what_the_head_replaces(vector: Path, tmp_path: Path) -> None:
    job = plan_merge_lora(vector / "base", [vector / "adapter"], tmp_path / "out")
    assert "lora brings a head, score.weight in place of lm_head.weight: 3 labels" in (
        job.plan.notes
    )


def test_a_value_head_is_left_out_and_said(vectors: Path, tmp_path: Path) -> None:
    vector = vectors / "merge" / "head_vhead"
    job = plan_merge_lora(vector / "base", [vector / "adapter_in"], tmp_path / "out")
    assert any("v_head.summary.weight" in note and "left out" in note for note in job.plan.notes)
    assert not any("v_head" in tensor.output.name for tensor in job.plan.tensors)


def test_another_layer_that_the_base_lacks_is_no_head(vector: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(vector / "adapter", adapter)
    held = load_file(adapter / "adapter_model.safetensors")
    write_adapter(adapter, held | {"base_model.model.extra.weight": torch.zeros(3, 24)})
    with pytest.raises(AdapterDoesNotFit) as caught:
        merge_lora(vector / "base", [adapter], tmp_path / "out")
    assert list(caught.value.context) == [
        "no extra.weight in the base for base_model.model.extra.weight"
    ]

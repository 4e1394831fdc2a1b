"""Names that an adapter has in memory are found in files, and what differs is said."""

import pytest

from weightsmith.plan.adapter_names import Names

CASES = {
    # Transformers 5 in memory, files as they always were.
    "model.language_model.layers.0.q.weight": "language_model.model.layers.0.q.weight",
    "model.vision_tower.encoder.fc.weight": "vision_tower.vision_model.encoder.fc.weight",
    "model.multi_modal_projector.weight": "multi_modal_projector.weight",
    "lm_head.weight": "language_model.lm_head.weight",
    # Of a text model, onto one with vision.
    "model.layers.0.q.weight": "model.language_model.layers.0.q.weight",
    "model.layers.1.q.weight": "language_model.model.layers.1.q.weight",
    # Of transformers 4, onto files of transformers 5.
    "language_model.model.layers.0.k.weight": "model.language_model.layers.0.k.weight",
    "visual.blocks.0.weight": "model.visual.blocks.0.weight",
    "vision_tower.vision_model.fc.weight": "model.vision_tower.fc.weight",
    # Other families.
    "model.layers.0.mixer.weight": "backbone.layers.0.mixer.weight",
    "h.0.attn.weight": "transformer.h.0.attn.weight",
    "model.layers.0.mlp.gate.weight": "model.layers.0.block_sparse_moe.gate.weight",
}


@pytest.mark.parametrize("memory, files", CASES.items(), ids=list(CASES))
def test_a_name_is_found_under_what_files_call_it(memory: str, files: str) -> None:
    names = Names({files}.__contains__, {"mlp.": "block_sparse_moe."})
    assert names.place(memory) == files
    assert len(names.notes("lora")) == 1


def test_a_name_that_is_there_is_taken_first_and_needs_no_word() -> None:
    held = {"model.layers.0.q.weight", "model.language_model.layers.0.q.weight"}
    names = Names(held.__contains__, {})
    assert names.place("model.layers.0.q.weight") == "model.layers.0.q.weight"
    assert names.notes("lora") == []


def test_a_name_that_is_nowhere_is_not_found() -> None:
    names = Names({"model.layers.0.q.weight"}.__contains__, {})
    assert names.place("model.layers.0.k.weight") is None


def test_what_differs_is_said_once_without_what_is_the_same() -> None:
    files = {f"language_model.model.layers.{n}.q.weight" for n in range(3)}
    names = Names(files.__contains__, {})
    for number in range(3):
        names.place(f"model.language_model.layers.{number}.q.weight")
    (note,) = names.notes("lora")
    assert note.endswith(": model.language_model for language_model.model (3 times)")

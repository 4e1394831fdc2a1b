"""A config says what the files hold, in all of its parts."""

import json
from pathlib import Path
from typing import Any

import pytest

from weightsmith.formats.tensors import TensorInfo
from weightsmith.ops.true_config import true_config

TEXT = TensorInfo("language_model.model.embed_tokens.weight", "BF16", (100, 10))
VISION = TensorInfo("vision_tower.patch_embed.weight", "F32", (10, 10))


def made(config: dict[str, Any], *outputs: TensorInfo, **settings: object) -> dict[str, Any]:
    raw, _ = true_config(json.dumps(config).encode(), Path("config.json"), outputs, settings)
    found: dict[str, Any] = json.loads(raw)
    return found


def test_every_part_that_states_a_dtype_gets_that_of_its_own_tensors() -> None:
    config = {
        "torch_dtype": "float16",
        "text_config": {"torch_dtype": "float16"},
        "vision_config": {"torch_dtype": "float16", "model_type": "siglip"},
        "audio_config": {"dtype": "float16"},
        "projector_config": {"hidden_size": 3},
        "quantization_config": {"dtype": "float16"},
    }
    assert made(config, TEXT, VISION) == {
        "torch_dtype": "bfloat16",
        "text_config": {"torch_dtype": "bfloat16"},
        "vision_config": {"torch_dtype": "float32", "model_type": "siglip"},
        "audio_config": {"dtype": "bfloat16"},  # no tensor is named so: as most are
        "projector_config": {"hidden_size": 3},
        "quantization_config": {"dtype": "float16"},
    }


def test_parts_of_parts_count() -> None:
    config = {"dtype": "float16", "thinker_config": {"vision_config": {"dtype": "float16"}}}
    thinker = made(config, TEXT, VISION)["thinker_config"]
    assert thinker == {"vision_config": {"dtype": "float32"}}


@pytest.mark.parametrize("key", ["vocab_size", "tie_word_embeddings"])
def test_a_setting_is_made_where_it_stands(key: str) -> None:
    assert made({"text_config": {key: 1}}, **{key: 2}) == {"text_config": {key: 2}}
    assert made({"text_config": {}}, **{key: 2}) == {"text_config": {}, key: 2}


def test_what_is_true_already_keeps_its_bytes() -> None:
    raw = b'{ "dtype":"bfloat16",  "vision_config": {"dtype":"float32"} }'
    assert true_config(raw, Path("config.json"), [TEXT, VISION], {}) == (raw, ())

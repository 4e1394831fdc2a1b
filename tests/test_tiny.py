"""The building blocks of demo and benchmark are what they claim to be."""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support import tiny


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``base`` as saved, ``broken`` the same broken, ``tuned``, and ``delta``: tuned - broken."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = folder / "tokenizer.model"
    tiny.train_sentencepiece(tokenizer)
    model = tiny.train_llama(tokenizer, steps=30)
    tiny.save_llama(model, folder / "base", tokenizer)
    tiny.save_llama(model, folder / "broken", tokenizer)
    tiny.break_like_decapoda(folder / "broken")
    tiny.save_llama(tiny.finetune(model, tokenizer, steps=20), folder / "tuned", tokenizer)
    tiny.make_fastchat_delta(folder / "broken", folder / "tuned", folder / "delta")
    return folder


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def read_json(path: Path) -> Any:
    return json.loads(path.read_bytes())


@pytest.mark.slow
def test_tokenizer_is_the_same_every_time(made: Path, tmp_path: Path) -> None:
    tiny.train_sentencepiece(tmp_path / "again.model")
    assert (tmp_path / "again.model").read_bytes() == (made / "tokenizer.model").read_bytes()


def test_tokenizer_has_the_settings_of_llama(made: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    encoder = SentencePieceProcessor(model_file=str(made / "tokenizer.model"))
    assert (encoder.unk_id(), encoder.bos_id(), encoder.eos_id(), encoder.pad_id()) == (0, 1, 2, -1)
    assert encoder.decode(encoder.encode("a  b é ")) == "a  b é "  # nothing is normalized away
    assert encoder.is_byte(encoder.encode("é")[-1])  # what has no piece falls back to bytes


def test_training_teaches_the_model_something(made: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(made / "base")
    assert model.dtype == torch.float16
    tokens = tiny.text_tokens(made / "tokenizer.model", [tiny.story(random.Random(-1))])[None]
    guessing = torch.tensor(model.config.vocab_size).log()
    assert model(input_ids=tokens, labels=tokens).loss < 0.75 * guessing


def test_good_folder_encodes_as_sentencepiece_does(made: Path) -> None:
    from sentencepiece import SentencePieceProcessor
    from transformers import AutoTokenizer

    encoder = SentencePieceProcessor(model_file=str(made / "tokenizer.model"))
    text = tiny.chat(random.Random(7))
    loaded: Any = AutoTokenizer.from_pretrained(made / "tuned")
    assert loaded(text).input_ids == encoder.encode(text, add_bos=True)


def test_good_sidecars_are_the_published_ones_byte_for_byte(made: Path) -> None:
    files = {path.name: md5(path.read_text()) for path in (made / "delta").glob("*.json")}
    assert files["special_tokens_map.json"] == "6b2e0a735969660e720c27061ef3f3d3"
    assert files["tokenizer_config.json"] == "edd1a5897748864768b1fab645b31491"
    assert files["generation_config.json"] == "148bfd184af630a7633b4de2f41bfc49"


def test_good_config_of_the_30b_sizes_is_the_published_one_byte_for_byte() -> None:
    config = tiny.llama_config(hidden=6656, intermediate=17920, layers=60, heads=52, vocab=32000)
    assert md5(tiny.json_text(config)) == "d566f98b28bf74ce6b35d5b20a651b27"


def test_broken_folder_has_33_shards_that_its_index_names(made: Path) -> None:
    index = read_json(made / "broken" / "pytorch_model.bin.index.json")
    shards = sorted(path.name for path in (made / "broken").glob("*.bin"))
    assert shards == [f"pytorch_model-{number:05}-of-00033.bin" for number in range(1, 34)]
    assert sorted(set(index["weight_map"].values())) == shards
    for name, shard in index["weight_map"].items():
        assert name in torch.load(made / "broken" / shard, weights_only=True)
    assert not list((made / "broken").glob("*.safetensors*"))


def test_broken_json_is_what_was_published(made: Path) -> None:
    texts = {path.name: path.read_text() for path in (made / "broken").glob("*.json")}
    assert texts["special_tokens_map.json"] == "{}"
    assert len(texts["generation_config.json"]) == 124
    assert texts["tokenizer_config.json"] == (
        '{"bos_token": "", "eos_token": "", "model_max_length": 1000000000000000019884624838656, '
        '"tokenizer_class": "LLaMATokenizer", "unk_token": ""}'
    )
    config = json.loads(texts["config.json"])
    assert config["architectures"] == ["LLaMAForCausalLM"]
    ids = (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"])
    assert ids == (0, 1, -1)
    assert config["max_sequence_length"] == 2048
    assert "max_position_embeddings" not in config


def test_breaking_keeps_the_weights_and_adds_rotary_buffers(made: Path) -> None:
    good, broken = tiny.read_weights(made / "base"), tiny.read_weights(made / "broken")
    added = broken.keys() - good.keys()
    assert added == {f"model.layers.{layer}{tiny.INV_FREQ}" for layer in range(3)}
    assert all(broken[name][0] == 1 and broken[name].dtype == torch.float16 for name in added)
    assert all(broken[name].equal(good[name]) for name in good)


def test_delta_and_base_give_the_target_but_for_rounding(made: Path) -> None:
    base, delta, target = (tiny.read_weights(made / side) for side in ("broken", "delta", "tuned"))
    buffers = {name for name in delta if name.endswith(tiny.INV_FREQ)}
    assert delta.keys() == base.keys() == target.keys() | buffers
    assert all(not delta[name].any() for name in buffers)
    for name, tensor in target.items():
        assert delta[name].dtype == torch.float16
        total = base[name] + delta[name]
        # Half a unit in the last place was lost in the difference, and half in the sum.
        bound = 2**-11 * (delta[name].float().abs() + total.float().abs()) + 2**-25
        assert ((total.float() - tensor.float()).abs() <= bound).all(), name
    assert any(delta[name].any() for name in target)


def test_too_few_tensors_for_the_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 tensors do not fill 2 shards"):
        tiny.write_bin(tmp_path, {"a": torch.zeros(1)}, shards=2)

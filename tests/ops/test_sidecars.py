"""The files beside the weights: the delta's, verbatim, and a config true to what is stored."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.folders import write_model
from weightsmith.errors import JsonInvalid
from weightsmith.ops.apply_delta import apply_delta, plan_apply_delta
from weightsmith.plan.model import Plan

CONFIG = {"model_type": "llama", "vocab_size": 9, "torch_dtype": "float16", "eps": 1e-06}


class Pair:
    """A base and a delta of one tensor, and files beside them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        write_model(home / "base", {"w": torch.ones(9, 4).half()}, config=CONFIG)
        write_model(home / "delta", {"w": torch.ones(9, 4).half()}, config=CONFIG)

    def add(self, side: str, files: Mapping[str, Any]) -> None:
        for name, content in files.items():
            text = content if isinstance(content, bytes) else json.dumps(content).encode()
            (self.home / side / name).write_bytes(text)

    def plan(self, **kwargs: Any) -> Plan:
        return plan_apply_delta(
            self.home / "base",
            self.home / "delta",
            target=self.home / "out",
            **{"repair": False, **kwargs},
        ).plan

    def publish(self, **kwargs: Any) -> dict[str, bytes]:
        apply_delta(
            self.home / "base",
            self.home / "delta",
            target=self.home / "out",
            **{"repair": False, **kwargs},
        )
        return {
            path.name: path.read_bytes()
            for path in (self.home / "out").iterdir()
            if path.name not in {"weightsmith.json", "model.safetensors"}
        }


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def _origins(plan: Plan) -> dict[str, str]:
    return {each.name: each.role for each in plan.sidecars}


def test_the_deltas_files_are_published_to_the_byte_and_the_bases_are_not(pair: Pair) -> None:
    delta = {
        "config.json": b'{"torch_dtype":   "float16",\r\n "b": 1}',
        "tokenizer.model": b"\x00not even a tokenizer",
        "README.md": b"the delta's card",
        "modeling_x.py": b"import os",
        "merges.txt": b"",
    }
    pair.add("delta", delta)
    pair.add("base", {"tokenizer.model": b"base", "LICENSE": b"base", "vocab.json": b"{}"})
    plan = pair.plan()
    assert _origins(plan) == dict.fromkeys(delta, "delta")
    assert all(not each.changes for each in plan.sidecars)
    assert plan.notes == ()
    assert pair.publish() == delta


def test_a_delta_without_a_tokenizer_takes_the_bases_and_says_so(pair: Pair) -> None:
    tokenizer = {"tokenizer.model": b"base", "tokenizer_config.json": b"{}"}
    pair.add("base", {**tokenizer, "README.md": b"base", "generation_config.json": b"{}"})
    plan = pair.plan()
    assert _origins(plan) == {"config.json": "delta", **dict.fromkeys(tokenizer, "base")}
    assert plan.notes == (
        "the delta lacks tokenizer.model, tokenizer_config.json: taken from the base",
    )


def test_a_delta_with_settings_but_no_vocabulary_takes_the_vocabulary_alone(pair: Pair) -> None:
    """As Vicuna v0's: its special tokens, the base's sentencepiece model."""
    pair.add("delta", {"tokenizer_config.json": b'{"delta": 1}'})
    pair.add("base", {"tokenizer.model": b"base", "tokenizer_config.json": b'{"base": 1}'})
    plan = pair.plan()
    assert _origins(plan) == {
        "config.json": "delta",
        "tokenizer.model": "base",
        "tokenizer_config.json": "delta",
    }
    assert plan.notes == ("the delta lacks tokenizer.model: taken from the base",)


def test_a_delta_without_a_config_takes_the_bases(pair: Pair) -> None:
    (pair.home / "delta" / "config.json").unlink()
    plan = pair.plan()
    assert _origins(plan) == {"config.json": "base"}
    assert plan.notes == ("the delta lacks config.json: taken from the base",)


def test_without_any_config_there_is_none(pair: Pair) -> None:
    for side in ("base", "delta"):
        (pair.home / side / "config.json").unlink()
    assert pair.plan().sidecars == ()
    assert pair.publish() == {}


@pytest.mark.parametrize(
    "config",
    [
        {"torch_dtype": "float16"},
        {"dtype": "float16"},
        {"torch_dtype": "float16", "dtype": "float16"},
        {"torch_dtype": "float32", "dtype": "float16"},
        {"torch_dtype": None},
        {},
    ],
    ids=str,
)
def test_the_config_says_what_the_files_hold(config: dict[str, Any], pair: Pair) -> None:
    """All else stays, in its order; where the dtype was left out, it is said."""
    given = {"z": 1e-06, "a": [1, {"é": "ü"}], **config, "m": 1000000000000000019884624838656}
    pair.add("delta", {"config.json": given})
    content = pair.publish(dtype="bfloat16")["config.json"]
    found = json.loads(content)
    keys = list(config) or ["torch_dtype"]
    assert found == {**given, **dict.fromkeys(keys, "bfloat16")}
    assert list(found) == [*given, *(key for key in keys if key not in given)]
    assert "é" in content.decode()


def test_the_config_follows_most_of_the_bytes(tmp_path: Path) -> None:
    tensors = {"w": torch.ones(9, 4).half(), "norm": torch.zeros(3), "ids": torch.arange(99)}
    for side in ("base", "delta"):
        write_model(tmp_path / side, tensors, config={"torch_dtype": "bfloat16"})
    target = tmp_path / "out"
    apply_delta(tmp_path / "base", tmp_path / "delta", target=target, force_kind=True)
    assert json.loads((target / "config.json").read_bytes()) == {"torch_dtype": "float16"}


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"\xff"])
@pytest.mark.parametrize("side", ["base", "delta"])
def test_a_config_that_is_none_is_refused_before_anything_is_written(
    side: str, content: bytes, pair: Pair
) -> None:
    pair.add(side, {"config.json": content})
    with pytest.raises(JsonInvalid, match=side):
        pair.publish()
    assert not (pair.home / "out").exists()


def test_every_sidecar_has_its_digest_in_plan_and_manifest(pair: Pair) -> None:
    from blake3 import blake3

    pair.add("delta", {"tokenizer.model": b"abc", "README.md": b"card"})
    plan = pair.plan()
    published = pair.publish()
    manifest = json.loads((pair.home / "out" / "weightsmith.json").read_bytes())
    for each in plan.sidecars:
        digest = blake3(published[each.name]).hexdigest()
        assert each.digest == digest
        assert manifest["sidecars"][each.name] == {
            "digest": digest,
            "size": len(published[each.name]),
        }

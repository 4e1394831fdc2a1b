"""The messages that docs/reference/faq.md answers are those of the libraries that it names."""

import argparse
import json
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.folders import copied
from tests.support.paths import ROOT, VECTORS

PAGE: Final = ROOT / "docs" / "reference" / "faq.md"
BASE: Final = VECTORS / "vicuna_v1_1" / "base"
LORA: Final = VECTORS / "lora" / "plain_fp16"
POINTER: Final = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
)

SEEN: Final = {
    "Tokenizer class LLaMATokenizer does not exist": "transformers 4.57.6",
    "'bool' object is not callable": "transformers 4.57.6",
    "Tokenizer class TokenizersBackend does not exist": "transformers 4.33.3, 4.46.3, 4.57.6",
    "'list' object has no attribute 'keys'": "transformers 4.57.6",
    "expected str, bytes or os.PathLike object, not NoneType": "transformers 4.46.3, 4.57.6",
    "Cannot use chat template functions": "transformers 4.46.3",
    "data did not match any variant of untagged enum ModelWrapper": "tokenizers 0.13.3",
    "does not appear to have a file named tokenization_x.py": "transformers 4.33.3 to 4.57.6",
    "The following `model_kwargs` are not used": "transformers 4.57.6",
    "with an incorrect regex pattern": "transformers 4.57.6, 5.3.0",
    "Due to a serious vulnerability issue in `torch.load`": "source of transformers 4.57.6",
    "does not contain the valid metadata": "source of transformers 4.46.3",
    "Consistency check failed": "source of huggingface_hub",
    "Cannot access gated repo for url": "source of huggingface_hub",
    "Naive integrity check failed": "source of stanford_alpaca's weight_diff.py",
    "Killed": "a shell, of a process that the kernel ended",
    "No space left on device": "the operating system",
}
"""Messages of what is not installed here, and where they were seen."""


def _weights(here: Path, content: bytes) -> None:
    from safetensors.torch import load_file

    (here / "x.safetensors").write_bytes(content)
    load_file(here / "x.safetensors")


def _torch(here: Path, content: bytes, *, weights_only: bool = True) -> None:
    import torch

    (here / "x.bin").write_bytes(content)
    torch.load(here / "x.bin", weights_only=weights_only)


def _cut(here: Path) -> None:
    import torch
    from safetensors.torch import save

    _weights(here, save({"w": torch.ones(1000)})[:-100])


def _torch_cut(here: Path) -> None:
    import torch

    torch.save({"w": torch.ones(100_000)}, here / "y.bin")
    _torch(here, (here / "y.bin").read_bytes()[:-1000])


def _namespace(here: Path) -> None:
    import torch

    torch.save({"args": argparse.Namespace(lr=1)}, here / "y.bin")
    torch.load(here / "y.bin")


def _shared(here: Path) -> None:
    import torch
    from safetensors.torch import save_file

    both = torch.ones(4, 4)
    save_file({"a": both, "b": both}, here / "x.safetensors")


def _model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def _no_weights(here: Path) -> None:
    shutil.copy(BASE / "config.json", here)
    _model(here)


def _shard_missing(here: Path) -> None:
    _model(BASE).save_pretrained(here, max_shard_size="40KB")
    sorted(here.glob("model-*.safetensors"))[1].unlink()
    _model(here)


def _row_too_many(here: Path) -> None:
    model = copied(BASE, here / "model")
    config = json.loads((model / "config.json").read_bytes())
    config["vocab_size"] += 1
    (model / "config.json").write_text(json.dumps(config))
    _model(model)


def _prefixed(here: Path) -> None:
    model = _model(BASE)
    model.load_state_dict({f"module.{name}": each for name, each in model.state_dict().items()})


def _unknown_id(here: Path) -> None:
    import torch

    _model(BASE)(torch.tensor([[100_000]]))


def _padding(here: Path) -> None:
    import torch

    torch.nn.Embedding(10, 4, padding_idx=10)


def _rows(here: Path) -> None:
    import torch

    _ = torch.ones(32000, 1) + torch.ones(32001, 1)


def _sampling(here: Path) -> None:
    model = _model(BASE)
    model.generation_config.do_sample = False
    model.generation_config.temperature = 0.9
    model.save_pretrained(here)


def _adapter(here: Path, **changes: object) -> None:
    from peft import PeftModel

    adapter = copied(LORA / "adapter", here / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_bytes()) | changes
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    PeftModel.from_pretrained(_model(LORA / "base"), adapter)


def _adapter_of_another_rank(here: Path) -> None:
    rank = json.loads((LORA / "adapter" / "adapter_config.json").read_bytes())["r"]
    _adapter(here, r=rank * 2)


def _no_adapter(here: Path) -> None:
    from peft import PeftModel

    PeftModel.from_pretrained(_model(LORA / "base"), LORA / "base")


def _blank(here: Path) -> None:
    from transformers import AutoTokenizer

    shutil.copy(BASE / "tokenizer.model", here)
    blank = dict.fromkeys(["bos_token", "eos_token", "unk_token"], "")
    config = {"tokenizer_class": "LlamaTokenizer", **blank}
    (here / "tokenizer_config.json").write_text(json.dumps(config))
    AutoTokenizer.from_pretrained(here)


MADE: Final[dict[str, Callable[[Path], object]]] = {
    "Error while deserializing header: incomplete metadata, file not fully covered": _cut,
    "Error while deserializing header: header too large": lambda here: _weights(here, POINTER),
    "Error while deserializing header: header too small": lambda here: _weights(here, b""),
    "PytorchStreamReader failed reading zip archive: failed finding central directory": _torch_cut,
    "invalid load key, 'v'.": lambda here: _torch(here, POINTER, weights_only=False),
    "Unsupported operand 118": lambda here: _torch(here, POINTER),
    "invalid load key, '<'.": lambda here: _torch(here, b"<!DOCTYPE html>", weights_only=False),
    "Unsupported operand 60": lambda here: _torch(here, b"<!DOCTYPE html>"),
    "Weights only load failed": _namespace,
    "Missing key(s) in state_dict": _prefixed,
    "Unexpected key(s) in state_dict": _prefixed,
    "Error no file named model.safetensors, or pytorch_model.bin, found in directory": _no_weights,
    "Should have a `model_type` key in its config.json": lambda here: _model(
        VECTORS / "meta_llama1_2shards" / "meta"
    ),
    "No such file or directory": _shard_missing,
    "Some tensors share memory": _shared,
    "The size of tensor a (32000) must match the size of tensor b (32001)": _rows,
    "You set `ignore_mismatched_sizes` to `False`, thus raising an error": _row_too_many,
    "index out of range in self": _unknown_id,
    "Padding_idx must be within num_embeddings": _padding,
    "GenerationConfig is invalid": _sampling,
    "Can't find 'adapter_config.json'": _no_adapter,
    "not found in the base model": lambda here: _adapter(here, target_modules=["qkv_proj"]),
    "size mismatch for base_model.model": _adapter_of_another_rank,
    "maximum recursion depth exceeded": _blank,
}
"""Messages of what is installed here, and what gives rise to them."""


def test_every_heading_is_a_message_that_was_seen() -> None:
    messages = [*SEEN, *MADE]
    headings = re.findall(r"^### (.+)$", PAGE.read_text("utf-8"), re.MULTILINE)
    unknown = [
        heading
        for heading in headings
        if not any(message in heading or heading in message for message in messages)
    ]
    assert len(headings) > 20
    assert unknown == []


def test_every_message_that_was_seen_stands_on_the_page() -> None:
    text = PAGE.read_text("utf-8")
    assert [message for message in (*SEEN, *MADE) if message not in text] == []


@pytest.mark.slow
@pytest.mark.parametrize("message", MADE)
def test_a_library_says_it(message: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Exception, match=re.escape(message)):
            MADE[message](tmp_path)

"""A model is tried in less memory than it has: LLaMA's shape, a gigabyte, its own process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.support import tiny
from tests.support.paths import ROOT

SIZES = {"hidden": 2048, "intermediate": 5504, "layers": 9, "heads": 16, "vocab": 32000}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random numbers in the shape of a LLaMA, in three shards."""
    folder = tmp_path_factory.mktemp("large")
    config = tiny.llama_config(**SIZES)
    tiny.train_sentencepiece(folder / "sp.model")
    tiny.write_sidecars(folder, folder / "sp.model", config)
    (folder / "sp.model").unlink()
    torch.manual_seed(0)
    hidden, intermediate, rows = SIZES["hidden"], SIZES["intermediate"], SIZES["vocab"]

    def matrix(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float32).mul_(0.02).half()

    def layer(number: int) -> dict[str, torch.Tensor]:
        place = f"model.layers.{number}."
        square = ("q_proj", "k_proj", "v_proj", "o_proj")
        return {
            **{f"{place}self_attn.{name}.weight": matrix(hidden, hidden) for name in square},
            f"{place}mlp.gate_proj.weight": matrix(intermediate, hidden),
            f"{place}mlp.up_proj.weight": matrix(intermediate, hidden),
            f"{place}mlp.down_proj.weight": matrix(hidden, intermediate),
            f"{place}input_layernorm.weight": torch.ones(hidden).half(),
            f"{place}post_attention_layernorm.weight": torch.ones(hidden).half(),
        }

    ends = {
        "model.embed_tokens.weight": matrix(rows, hidden),
        "lm_head.weight": matrix(rows, hidden),
        "model.norm.weight": torch.ones(hidden).half(),
    }
    parts = [ends, *(layer(number) for number in range(SIZES["layers"]))]
    for number, part in enumerate(parts, start=1):
        name = f"model-{number:05}-of-{len(parts):05}.safetensors"
        save_file(part, folder / name, metadata={"format": "pt"})
    return folder


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_low_cpu_mem_takes_less_memory_than_the_model(large: Path) -> None:
    size = sum(path.stat().st_size for path in large.glob("*.safetensors"))
    assert size > 10**9
    peaks = []
    for options in ([], ["--low-cpu-mem"]):
        arguments = ["verify", str(large), "--smoke", "--device", "cpu", "--max-new-tokens", "2"]
        done = subprocess.run(
            [sys.executable, "-m", "weightsmith", *arguments, "--json", *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,  # weights at random fail by their perplexity
        )
        did = json.loads(done.stdout)["smoke"]
        assert did["finite"]
        peaks.append(did["peak_memory_nbytes"])
    whole, parts = peaks
    assert whole > size
    assert parts < 0.75 * size, (whole, parts, size)

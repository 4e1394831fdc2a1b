"""What the original tools made of real inputs, we make too, to the bit, however we run."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.support.folders import assert_same_bits, contents, load, state
from weightsmith.engine.options import Options
from weightsmith.ops.apply_delta import apply_delta

VICUNA, LOWMEM = "vicuna_v1_1", "vicuna_v1_1_base_fp32_lowmem"
SIDECARS = ["generation_config.json", "special_tokens_map.json", "tokenizer_config.json"]
THREE_SHARDS = 30_000


def apply(vector: Path, target: Path, **kwargs: Any) -> Path:
    """Apply a vector's delta, its sidecars verbatim."""
    outcome = apply_delta(
        vector / "base", vector / "delta", target=target, **{"repair": False, **kwargs}
    )
    assert outcome.target == target
    return target


@pytest.fixture(scope="module")
def sharded(vectors: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every file of Vicuna in more than three shards, as the default flags make it."""
    target = tmp_path_factory.mktemp("sharded") / "out"
    return contents(apply(vectors / VICUNA, target, max_shard_nbytes=THREE_SHARDS))


def test_vicuna_comes_out_as_fastchat_made_it(vectors: Path, tmp_path: Path) -> None:
    target = apply(vectors / VICUNA, tmp_path / "out")
    expected = vectors / VICUNA / "expected"
    assert_same_bits(load(target), load_file(expected / "expected.safetensors"))
    delta = vectors / VICUNA / "delta"
    for name in [*SIDECARS, "tokenizer.model", "config.json"]:
        assert (target / name).read_bytes() == (delta / name).read_bytes()


def test_a_wider_base_gives_what_fastchats_low_memory_mode_made(
    vectors: Path, tmp_path: Path
) -> None:
    target = apply(vectors / LOWMEM, tmp_path / "out", dtype="base")
    expected = load_file(vectors / LOWMEM / "expected" / "expected.safetensors")
    assert_same_bits(load(target), expected)
    assert b'"torch_dtype": "float32"' in (target / "config.json").read_bytes()


def test_a_wider_base_is_cast_first_by_default_as_fastchats_standard_mode_does(
    vectors: Path, tmp_path: Path
) -> None:
    found = load(apply(vectors / LOWMEM, tmp_path / "out"))
    base, delta = (
        {
            name: tensor
            for path in sorted((vectors / LOWMEM / side).glob("*.bin"))
            for name, tensor in torch_load(path).items()
        }
        for side in ("base", "delta")
    )
    expected = {name: base[name].half() + tensor.half() for name, tensor in delta.items()}
    assert_same_bits(found, expected)


def torch_load(path: Path) -> dict[str, Any]:
    import torch

    loaded: dict[str, Any] = torch.load(path, weights_only=True)
    return loaded


WAYS = [
    *({"workers": workers} for workers in (1, 2, 4)),
    {"low_cpu_mem": True},
    {"verify": "disk"},
    {"verify": "no"},
    {"verify": "disk", "low_cpu_mem": True, "workers": 3},
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_file_has_the_same_bytes_however_it_is_made(
    way: dict[str, Any], vectors: Path, tmp_path: Path, sharded: dict[str, bytes]
) -> None:
    before = state(vectors / VICUNA)
    options = Options(**way)
    target = apply(
        vectors / VICUNA, tmp_path / "other" / "out", max_shard_nbytes=THREE_SHARDS, options=options
    )
    assert contents(target) == sharded
    assert state(vectors / VICUNA) == before


def test_no_worker_count_leaves_the_output_unwritten(
    vectors: Path, tmp_path: Path, sharded: dict[str, bytes]
) -> None:
    options = Options(workers=0)
    target = apply(
        vectors / VICUNA, tmp_path / "out", max_shard_nbytes=THREE_SHARDS, options=options
    )
    assert contents(target) == sharded


@pytest.mark.parametrize("limit", [1, 5_000, 30_000, 70_000, 10**12])
def test_the_tensors_do_not_depend_on_the_size_of_shards(
    limit: int, vectors: Path, tmp_path: Path
) -> None:
    target = apply(vectors / VICUNA, tmp_path / "out", max_shard_nbytes=limit)
    expected = load_file(vectors / VICUNA / "expected" / "expected.safetensors")
    assert_same_bits(load(target), expected)
    shards = sorted(path.name for path in target.glob("*.safetensors"))
    if limit == 1:
        assert len(shards) == len(load(target))
    assert shards == (
        ["model.safetensors"]
        if limit > 200_000
        else [f"model-{n + 1:05d}-of-{len(shards):05d}.safetensors" for n in range(len(shards))]
    )


def test_what_the_library_writes_for_the_same_tensors_is_what_we_write(
    vectors: Path, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    target = apply(vectors / VICUNA, tmp_path / "out")
    save_file(load(target), tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    ours = (target / "model.safetensors").read_bytes()
    assert ours == (tmp_path / "theirs.safetensors").read_bytes()


def test_transformers_loads_the_result_whole(vectors: Path, tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    target = apply(vectors / VICUNA, tmp_path / "out", max_shard_nbytes=THREE_SHARDS)
    loaded: Any = LlamaForCausalLM.from_pretrained(target, output_loading_info=True)
    model, report = loaded
    assert not any(report.values())
    assert_same_bits(model.state_dict(), load(target))


def test_modes_of_files_follow_the_umask(vectors: Path, tmp_path: Path) -> None:
    target = apply(vectors / VICUNA, tmp_path / "out", max_shard_nbytes=THREE_SHARDS)
    modes = {path.stat().st_mode & 0o777 for path in target.iterdir()}
    assert modes == {0o644}
    assert target.stat().st_mode & 0o777 == 0o755


def test_two_formats_of_the_inputs_give_the_same_tensors(vectors: Path, tmp_path: Path) -> None:
    """Base and delta each as torch or as safetensors files: four ways, one result."""
    vector = vectors / VICUNA
    expected = load_file(vector / "expected" / "expected.safetensors")
    safe = {side: _as_safetensors(vector / side, tmp_path / side) for side in ("base", "delta")}
    for number, (base, delta) in enumerate(
        itertools.product((vector / "base", safe["base"]), (vector / "delta", safe["delta"]))
    ):
        target = tmp_path / f"out{number}"
        apply_delta(base, delta, target=target, repair=False)
        assert_same_bits(load(target), expected)


def _as_safetensors(folder: Path, copy: Path) -> Path:
    from tests.support.folders import write_model

    tensors = {
        name: tensor
        for path in sorted(folder.glob("*.bin"))
        for name, tensor in torch_load(path).items()
    }
    return write_model(copy, tensors, shards=3)

"""A folder in Meta's layout serves wherever a model does, without converting it first."""

import json
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.folders import assert_same_bits, contents, load, staging, write_model
from tests.support.meta_layout import random_llama, write_meta
from weightsmith.engine.options import Options
from weightsmith.errors import StagingOfAnotherPlan
from weightsmith.ops.apply_delta import apply_delta
from weightsmith.ops.convert import convert
from weightsmith.ops.inspect import inspect
from weightsmith.ops.verify.verify import verify
from weightsmith.sources.recognise import open_model

SMALL = 30_000


@pytest.fixture
def meta(tmp_path: Path) -> Path:
    """A tiny LLaMA in two files."""
    return write_meta(tmp_path / "LLaMA" / "7B", random_llama(), heads=8, shards=2)


@pytest.fixture
def delta(tmp_path: Path) -> Path:
    """A delta against it, as FastChat makes one."""
    base, tuned = random_llama(), random_llama(seed=1)
    difference: dict[str, Tensor] = {name: (tuned[name] - base[name]) / 64 for name in base}
    config = {"model_type": "llama", "vocab_size": 160, "torch_dtype": "float16"}
    return write_model(tmp_path / "tiny-delta", difference, config=config, suffix="bin", shards=3)


@pytest.mark.parametrize("options", [Options(workers=3), Options(low_cpu_mem=True)])
def test_a_delta_is_applied_to_it_as_to_its_conversion(
    options: Options, meta: Path, delta: Path, tmp_path: Path
) -> None:
    convert(meta, tmp_path / "llama-7b")
    apply_delta(meta, delta, target=tmp_path / "direct", options=options)
    apply_delta(tmp_path / "llama-7b", delta, target=tmp_path / "usual")
    assert_same_bits(load(tmp_path / "direct"), load(tmp_path / "usual"))
    ours, theirs = contents(tmp_path / "direct"), contents(tmp_path / "usual")
    for name in ours.keys() - {"weightsmith.json"}:
        assert ours[name] == theirs[name], name


def test_a_tokenizer_that_the_delta_lacks_is_made_from_metas(
    vectors: Path, meta: Path, delta: Path, tmp_path: Path
) -> None:
    model = vectors / "meta_llama1_2shards" / "meta" / "tokenizer.model"
    (meta.parent / "tokenizer.model").write_bytes(model.read_bytes())
    apply_delta(meta, delta, target=tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == model.read_bytes()
    settings = json.loads((tmp_path / "out" / "tokenizer_config.json").read_bytes())
    assert settings["tokenizer_class"] == "LlamaTokenizer"


def test_a_weight_file_that_changed_since_is_never_mixed(
    meta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from weightsmith import fs

    steps = iter(range(10))

    def stop() -> None:
        if next(steps) == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(fs, "on_durable_step", stop)
    with pytest.raises(KeyboardInterrupt):
        convert(meta, tmp_path / "out", max_shard_nbytes=SMALL)
    monkeypatch.undo()
    assert list((staging(tmp_path / "out") / "receipts").iterdir())
    part = torch.load(meta / "consolidated.01.pth", weights_only=True)
    torch.save(part, meta / "consolidated.01.pth")  # the same tensors, written anew
    os.utime(meta / "consolidated.01.pth", ns=(1, 1))  # at another time by any clock
    with pytest.raises(StagingOfAnotherPlan, match="changed since"):
        convert(meta, tmp_path / "out", max_shard_nbytes=SMALL)


def test_inspect_and_verify_read_it(meta: Path) -> None:
    found = inspect(meta)
    assert (found.kind, found.tensors) == ("meta", len(random_llama()))
    assert found.files == ("consolidated.00.pth", "consolidated.01.pth")
    assert "hidden 64, 2 layers, 8 heads" in found.architecture
    checks = {check.name: check.verdict for check in verify(meta).checks}
    assert checks["shapes"] == checks["numbers"] == "pass"


def test_reads_of_any_range_agree_with_the_whole(meta: Path) -> None:
    source = open_model(meta)
    name = "model.layers.1.self_attn.q_proj.weight"
    whole = bytearray(source.tensors[name].info.nbytes)
    source.read_into(name, 0, memoryview(whole))
    for start, stop in [(0, 2), (130, 4000), (len(whole) - 6, len(whole)), (128, 128)]:
        part = bytearray(stop - start)
        source.read_into(name, start, memoryview(part))
        assert part == whole[start:stop]

"""Tensors are ranges of bytes, wherever and however their file holds them."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support.folders import load, save, write_model
from tests.support.pace import examples
from tests.support.spans import DTYPES, assert_bits, random_tensor, raw
from weightsmith.checkpoint import store
from weightsmith.checkpoint.checkpoint import Checkpoint
from weightsmith.checkpoint.opening import open_checkpoint
from weightsmith.engine.options import Options
from weightsmith.errors import JsonInvalid, ShardTruncated, ZipInvalid
from weightsmith.ops.apply_delta import apply_delta

SPAN = "weightsmith.{}.SPAN_NBYTES"


def strided() -> dict[str, Tensor]:
    """What a state dict may hold: transposes, slices, steps, and views of one large storage."""
    large = random_tensor("F16", 40, 30)
    volume = random_tensor("F16", 5, 6, 7, seed=1)
    return {
        "contiguous": large,
        "transposed": random_tensor("F16", 33, 17, seed=2).T,
        "rows": large[7:29],
        "columns": large[:, 3:20],
        "every third": large[::3],
        "every fifth column": large[:, ::5],
        "permuted": volume.permute(2, 0, 1),
        "inner": volume[1:4, :, 2],
        "one element": large[5, 7],
        "one column": large[:, 9:10],
        "one row": large[12:13].T,
        "last": large[-1, -3:],
        "empty": large[4:4],
        "flipped": torch.arange(10, dtype=torch.float16).flip(0),
    }


def test_views_of_any_stride_and_offset_read_as_torch_shows_them(tmp_path: Path) -> None:
    tensors = strided()
    save(tmp_path / "pytorch_model.bin", tensors)
    checkpoint = open_checkpoint(tmp_path)
    assert any(tensor.stored.strides is not None for tensor in checkpoint.tensors.values())
    for name, tensor in tensors.items():
        assert checkpoint.tensors[name].info.shape == tuple(tensor.shape)
        assert _bytes(checkpoint, name, 0, tensor.numel() * 2) == raw(tensor), name


class Afar(store.LocalStore):
    """A directory whose files are not here yet."""

    def is_far(self, name: str) -> bool:
        return True

    def nbytes(self, name: str) -> int:
        return self.identity(name)[0]


def test_what_was_assumed_of_a_torch_file_is_proved_before_a_byte_of_it_is_read(
    tmp_path: Path,
) -> None:
    tensors = {name: random_tensor("F16", 30, 30, seed=seed) for seed, name in enumerate("ab")}
    save(tmp_path / "pytorch_model.bin", tensors)
    checkpoint = open_checkpoint(tmp_path, store=Afar(tmp_path))
    assert all(_bytes(checkpoint, n, 0, 1800) == raw(each) for n, each in tensors.items())
    # The header of a member says otherwise than its place: torch would read from four bytes before.
    path = tmp_path / "pytorch_model.bin"
    content = bytearray(path.read_bytes())
    start = content.index(b"PK\3\4", checkpoint.tensors["a"].stored.offset - 128)
    padding = int.from_bytes(content[start + 28 : start + 30], "little")
    content[start + 28 : start + 30] = (padding - 4).to_bytes(2, "little")
    path.write_bytes(content)
    assert _bytes(open_checkpoint(tmp_path), "a", 0, 1800) != raw(tensors["a"])
    checkpoint = open_checkpoint(tmp_path, store=Afar(tmp_path))
    for name in tensors:
        with pytest.raises(ZipInvalid, match="elsewhere"):
            _bytes(checkpoint, name, 0, 1800)


@settings(max_examples=examples(60))
@given(data=st.data())
def test_any_range_of_a_strided_tensor_is_that_range_of_its_bytes(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "strided"
    if not folder.exists():
        folder.mkdir()
        save(folder / "pytorch_model.bin", strided())
    tensors = strided()
    name = data.draw(st.sampled_from(sorted(tensors)))
    start = data.draw(st.integers(0, tensors[name].numel()))
    stop = data.draw(st.integers(start, tensors[name].numel()))
    found = _bytes(open_checkpoint(folder), name, 2 * start, 2 * (stop - start))
    assert found == raw(tensors[name])[2 * start : 2 * stop]


def _bytes(checkpoint: Checkpoint, name: str, start: int, nbytes: int) -> bytes:
    buffer = bytearray(b"\xa5" * nbytes)
    checkpoint.read_into(name, start, memoryview(buffer))
    return bytes(buffer)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F64", "I8", "I64", "U8"])
def test_strides_count_elements_of_any_width(dtype: str, tmp_path: Path) -> None:
    tensor = torch.arange(120).reshape(10, 12).to(DTYPES[dtype]).T
    save(tmp_path / "pytorch_model.bin", {"w": tensor, "v": tensor[1:, 2:]})
    checkpoint = open_checkpoint(tmp_path)
    for name, expected in (("w", tensor), ("v", tensor[1:, 2:])):
        assert _bytes(checkpoint, name, 0, checkpoint.tensors[name].info.nbytes) == raw(expected)


def test_complex_numbers_of_sixteen_bytes_may_be_strided(tmp_path: Path) -> None:
    tensor = torch.arange(24).to(torch.complex128).reshape(4, 6).T
    save(tmp_path / "pytorch_model.bin", {"w": tensor})
    assert (
        _bytes(open_checkpoint(tmp_path), "w", 0, 24 * 16) == tensor.contiguous().numpy().tobytes()
    )


@pytest.mark.parametrize("workers", [1, 4])
def test_strided_tensors_are_summed_like_any_other(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Base and delta strided each in its own way, in more than one span, and rows that it lacks."""
    base = {"w": random_tensor("F32", 70, 50).T, "norm": random_tensor("F32", 20)[3:11] + 1}
    delta = {
        "w": random_tensor("F16", 50, 140, scale=0.001, seed=1)[:, ::2],
        "norm": random_tensor("F16", 30, scale=0.001, seed=2)[5:13],
    }
    base["model.embed_tokens.weight"] = random_tensor("F16", 24, 400, seed=3).T
    delta["model.embed_tokens.weight"] = random_tensor("F16", 24, 402, scale=0.001, seed=4).T
    config = {"model_type": "llama", "vocab_size": 400}
    write_model(tmp_path / "base", base, suffix="bin", config=config)
    write_model(tmp_path / "delta", delta, suffix="bin", config={**config, "vocab_size": 402})
    for module in ("engine.spans", "checkpoint.digest"):
        monkeypatch.setattr(SPAN.format(module), 500)
    apply_delta(
        tmp_path / "base",
        tmp_path / "delta",
        target=tmp_path / "out",
        new_rows="zero",
        options=Options(workers=workers),
    )
    found = load(tmp_path / "out")
    for name, tensor in delta.items():
        expected = tensor.clone().contiguous()
        expected[: len(base[name])] += base[name].half()
        assert_bits(found[name], expected)


def test_more_shards_than_files_may_be_open_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "OPEN_FILES", 3)
    tensors = {f"w{number:02d}": random_tensor("F16", 5, seed=number) for number in range(20)}
    write_model(tmp_path, tensors, shards=20)
    checkpoint = open_checkpoint(tmp_path)
    for _ in range(2):
        for name, tensor in tensors.items():
            assert _bytes(checkpoint, name, 0, 10) == raw(tensor)
    opened = checkpoint._store
    assert isinstance(opened, store.LocalStore)
    assert len(opened._open) == 3
    opened.release("model-00020-of-00020.safetensors")
    assert len(opened._open) == 2


def test_a_file_that_shrinks_after_it_was_opened_is_an_error_and_no_garbage(tmp_path: Path) -> None:
    write_model(tmp_path, {"w": random_tensor("F16", 1000)})
    checkpoint = open_checkpoint(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ShardTruncated, match=r"model\.safetensors"):
        _bytes(checkpoint, "w", 0, 2000)
    assert checkpoint.changed_files() == [str(path)]


def test_a_changed_or_missing_file_is_noticed(tmp_path: Path) -> None:
    write_model(tmp_path, {"v": torch.zeros(3), "w": torch.ones(3)}, shards=2)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.changed_files() == []
    first, second = sorted(tmp_path.glob("*.safetensors"))
    first.unlink()
    os.utime(second, ns=(1, 1))  # another time by any clock
    assert checkpoint.changed_files() == [str(first), str(second)]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'"config"', b"{'a': 1}", b'{"a": 1, "a": 2}']
)
def test_a_config_that_is_none_is_refused(content: bytes, tmp_path: Path) -> None:
    write_model(tmp_path, {"w": torch.zeros(3)})
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(JsonInvalid, match=r"config\.json"):
        _ = open_checkpoint(tmp_path).config


@pytest.mark.parametrize(
    "config, size",
    [
        ({"vocab_size": 32000}, 32000),
        ({"text_config": {"vocab_size": 100}}, 100),
        ({"vocab_size": 5, "text_config": {"vocab_size": 100}}, 5),
        ({"vocab_size": "32000"}, None),
        ({"vocab_size": None}, None),
        ({"text_config": [100]}, None),
        ({}, None),
    ],
)
def test_the_vocabulary_size_is_the_configs_if_it_is_one(
    config: dict[str, object], size: int | None, tmp_path: Path
) -> None:
    write_model(tmp_path, {"w": torch.zeros(3)}, config=config)
    assert open_checkpoint(tmp_path).vocab_size == size


def test_a_folder_without_a_config_has_an_empty_one(tmp_path: Path) -> None:
    write_model(tmp_path, {"w": torch.zeros(3)})
    (tmp_path / "config.json").unlink()
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.config == {}
    assert checkpoint.vocab_size is None


def test_a_config_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    write_model(tmp_path, {"w": torch.zeros(3)})
    (tmp_path / "config.json").write_bytes(b'\xef\xbb\xbf{"vocab_size": 7}')
    assert open_checkpoint(tmp_path).vocab_size == 7

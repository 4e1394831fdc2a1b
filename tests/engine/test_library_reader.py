"""What we write is opened by the library that the format comes from, before it is published."""

import json
import struct
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import save_file

import weightsmith
from weightsmith.engine import output
from weightsmith.engine.library_reader import require_readable
from weightsmith.errors import VerificationFailed
from weightsmith.formats.safetensors_header import read_header


def test_every_published_file_is_opened_by_it(vectors: Path, tmp_path: Path) -> None:
    source = vectors / "vicuna_v1_1_base_fp32_lowmem" / "base"
    with patch.object(output, "require_readable", wraps=require_readable) as opened:
        outcome = weightsmith.plan_convert(source, tmp_path / "x", max_shard_nbytes=40_000).run()
    assert [call.args[0].name for call in opened.call_args_list] == [*outcome.manifest.files]
    assert len(outcome.manifest.files) > 1


def test_what_it_refuses_is_not_published(vectors: Path, tmp_path: Path) -> None:
    source = vectors / "vicuna_v1_1" / "base"
    fault = VerificationFailed(file="x", reason="the safetensors library refuses it")
    with patch.object(output, "require_readable", side_effect=fault):
        job = weightsmith.plan_convert(source, tmp_path / "x")
        with pytest.raises(VerificationFailed):
            job.run()
    assert not (tmp_path / "x").exists()
    assert job.run().kept  # what was finished is kept


def rename_dtype(path: Path, old: bytes, new: bytes) -> None:
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = raw[8 : 8 + length].replace(old, new)
    assert json.loads(header)
    path.write_bytes(struct.pack("<Q", len(header)) + header + raw[8 + length :])


def test_a_dtype_that_it_does_not_know_is_told_and_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.ones(2, dtype=torch.float8_e4m3fn)}, path)
    rename_dtype(path, b"F8_E4M3", b"F8_E9M9")
    from weightsmith.formats import safetensors_header, tensors

    for table in (tensors.DTYPE_BITS, tensors._BITS):
        monkeypatch.setitem(table, "F8_E9M9", 8)
    monkeypatch.setitem(safetensors_header._CODES, "F8_E9M9", "F8_E9M9")
    assert "not opened with the safetensors library: F8_E9M9" in require_readable(path)


def test_a_file_that_only_we_read_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.ones(2), "v": torch.ones(3)}, path)
    assert not require_readable(path)
    from weightsmith.engine import library_reader

    whole = read_header

    def without_one(file: object) -> object:
        header, raw = whole(file)  # type: ignore[arg-type]
        return replace(header, tensors=header.tensors[:1]), raw

    monkeypatch.setattr(library_reader, "read_header", without_one)
    with pytest.raises(VerificationFailed, match="other names"):
        require_readable(path)

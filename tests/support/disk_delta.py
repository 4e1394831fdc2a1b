"""Versions as training runs publish them, written and read by their description alone."""

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
import zstandard
from blake3 import blake3
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from tests.support.spans import raw

Weights = dict[str, Tensor]


def checksum(algorithm: str, data: bytes) -> str:
    """As trainers write it."""
    match algorithm:
        case "xxh3-128":
            return xxhash.xxh3_128_hexdigest(data)
        case "blake3":
            return blake3(data).hexdigest()
        case _:
            return f"{zlib.adler32(data):08x}"


def publish(
    folder: Path,
    version: int,
    before: Weights,
    after: Weights,
    *,
    encoding: str = "xor",
    algorithm: str = "xxh3-128",
    **metadata: str,
) -> Path:
    """What changed, in two files, tensors in turn."""
    path = folder / f"weight_v{version:06d}"
    path.mkdir(parents=True)
    files: list[tuple[dict[str, Tensor], dict[str, str]]] = [({}, {}), ({}, {})]
    weight_map: dict[str, str] = {}
    changed = [name for name in after if raw(before[name]) != raw(after[name])]
    for number, name in enumerate(changed):
        old, new = raw(before[name]), raw(after[name])
        if encoding == "xor":
            diff = (np.frombuffer(old, np.uint8) ^ np.frombuffer(new, np.uint8)).tobytes()
        else:
            places = np.nonzero(np.frombuffer(old, np.uint8) != np.frombuffer(new, np.uint8))[0]
            values = bytes(new[i] for i in places)
            diff = struct.pack(f"<{len(places) + 1}I", len(places), *places) + values
        packed = zstandard.ZstdCompressor(level=1).compress(diff)
        tensors, sums = files[number % 2]
        tensors[name] = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
        sums[name] = checksum(algorithm, new)
        weight_map[name] = f"model-{number % 2:05d}-of-{min(len(changed), 2):05d}.safetensors"
    for number, (tensors, sums) in enumerate(files[: min(len(changed), 2)]):
        name = f"model-{number:05d}-of-{min(len(changed), 2):05d}.safetensors"
        save_file(tensors, path / name, metadata=sums)
    said = {
        "version": f"{version:06d}",
        "base_version": f"{version - 1:06d}",
        "delta_encoding": encoding,
        "compression_format": "zstd",
        "checksum_format": algorithm,
        **metadata,
    }
    index = {"metadata": said, "weight_map": weight_map}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return path


def apply(folder: Path, before: Weights) -> Weights:
    """What a receiver makes of a version."""
    index: dict[str, Any] = json.loads((folder / "model.safetensors.index.json").read_text())
    said, after = index["metadata"], dict(before)
    assert said["compression_format"] == "zstd"
    for name, file in index["weight_map"].items():
        with safe_open(folder / file, "pt") as opened:
            packed, sums = opened.get_tensor(name), opened.metadata()
        assert packed.dtype == torch.uint8
        assert packed.ndim == 1
        diff = zstandard.ZstdDecompressor().decompress(
            packed.numpy().tobytes(), max_output_size=10 * before[name].nbytes + 99
        )
        new = np.frombuffer(raw(before[name]), np.uint8).copy()
        if said["delta_encoding"] == "xor":
            new ^= np.frombuffer(diff, np.uint8)
        else:
            (count,) = struct.unpack_from("<I", diff)
            places = np.frombuffer(diff, "<u4", count, 4)
            new[places] = np.frombuffer(diff, np.uint8, count, 4 + 4 * count)
        assert checksum(said["checksum_format"], new.tobytes()) == sums[name]
        flat = torch.frombuffer(bytearray(new.tobytes()), dtype=before[name].dtype)
        after[name] = flat.reshape(before[name].shape)
    return after

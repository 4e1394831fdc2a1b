"""A step in the disk-delta layout, as its description has it: python disk_delta_loop.py make|apply.

make BASE TARGET DIR     zstd level 1 and xxh3-128 for each tensor that changed
apply BASE DIR TARGET    each tensor unpacked, XORed and held against its checksum
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
import zstandard
from safetensors import safe_open
from safetensors.torch import save_file

way, *folders = sys.argv[1:]
first, second, made = map(Path, folders)
made.mkdir(parents=True)
WEIGHTS = "model.safetensors"


def raw(tensor: torch.Tensor) -> Any:
    """A tensor's bytes."""
    return tensor.reshape(-1).view(torch.uint8).numpy()


tensors, sums = {}, {}
(file,) = second.glob("*.safetensors")
with safe_open(first / WEIGHTS, "pt") as base, safe_open(file, "pt") as other:
    if way == "make":
        packer = zstandard.ZstdCompressor(level=1)
        for name in base.keys():  # noqa: SIM118  (it is no mapping)
            old, new = raw(base.get_tensor(name)), raw(other.get_tensor(name))
            if np.array_equal(old, new):
                continue
            packed = packer.compress((old ^ new).tobytes())
            tensors[name] = torch.frombuffer(bytearray(packed), dtype=torch.uint8)
            sums[name] = xxhash.xxh3_128_hexdigest(new)
        metadata = sums
    else:
        sums = other.metadata()
        unpacker = zstandard.ZstdDecompressor()
        for name in base.keys():  # noqa: SIM118  (it is no mapping)
            tensor = base.get_tensor(name)
            if name in sums:
                packed = other.get_tensor(name).numpy()
                diff = unpacker.decompress(packed, max_output_size=tensor.nbytes)
                new = raw(tensor) ^ np.frombuffer(diff, np.uint8)
                assert xxhash.xxh3_128_hexdigest(new) == sums[name]
                tensor = torch.from_numpy(new).view(tensor.dtype).reshape(tensor.shape)
            tensors[name] = tensor
        metadata = {"format": "pt"}
    save_file(tensors, made / WEIGHTS, metadata=metadata)
if way == "make":
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, WEIGHTS)}
    (made / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
for path in made.iterdir():
    with path.open("rb") as written:
        os.fsync(written.fileno())

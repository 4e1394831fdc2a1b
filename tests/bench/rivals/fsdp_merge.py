"""Join the files of all processes as training frameworks' own scripts do: load all, cat, save.

python fsdp_merge.py FOLDER OUT
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

if __name__ == "__main__":
    folder, out = map(Path, sys.argv[1:])
    paths = sorted(
        folder.glob("model_world_size_*.pt"), key=lambda path: int(path.stem.rsplit("_", 1)[1])
    )
    states = [torch.load(path, weights_only=False) for path in paths]
    merged = {}
    for name in list(states[0]):
        parts = [state.pop(name) for state in states]
        if isinstance(parts[0], DTensor):
            merged[name] = torch.cat([part.to_local() for part in parts])
        else:
            merged[name] = parts[0]
    out.mkdir(parents=True)
    save_file(merged, out / "model.safetensors", metadata={"format": "pt"})

"""Make a model of a distributed checkpoint with torch's own tool, and save it for transformers.

python dcp_merge.py FOLDER OUT
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

if __name__ == "__main__":
    folder, out = map(Path, sys.argv[1:])
    out.mkdir(parents=True)
    dcp_to_torch_save(folder, out / "joined.pt")
    save_file(torch.load(out / "joined.pt"), out / "model.safetensors", metadata={"format": "pt"})
    (out / "joined.pt").unlink()

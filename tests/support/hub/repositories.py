"""A repository as most are, and what comes of it on disk."""

import json
import random
from pathlib import Path
from typing import Any

from tests.support.hub.client import Client

RANDOM = random.Random(0)
SHARDS = {f"model-0000{n}-of-00002.safetensors": RANDOM.randbytes(700_000) for n in (1, 2)}
INDEX = {"metadata": {}, "weight_map": {f"w{n}": name for n, name in enumerate(SHARDS)}}
MODEL = {
    **SHARDS,
    "model.safetensors.index.json": json.dumps(INDEX).encode(),
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.model": RANDOM.randbytes(5_000),
    "README.md": "a model – of sorts".encode(),
}
NOT_NEEDED = {
    "pytorch_model.bin": RANDOM.randbytes(900_000),
    "optimizer.bin": b"o" * 1000,
    "training_args.bin": b"t" * 1000,
    "model-stray.safetensors": b"s" * 1000,
    "consolidated.00.pth": b"c" * 1000,
    "original/consolidated.00.pth": b"c" * 1000,
    "checkpoint-500/model.safetensors": b"5" * 1000,
    "runs/events.out": b"r" * 1000,
    ".gitattributes": b"*.bin filter=lfs",
}


def files_in(folder: str | Path) -> dict[str, bytes]:
    """Contents by name, but for the corner that the hub library keeps for itself."""
    folder = Path(folder)
    found = (path for path in folder.rglob("*") if path.is_file())
    contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
    return {name: raw for name, raw in contents.items() if not name.startswith(".cache/")}


def scan_warnings(client: Client) -> list[Any]:
    from huggingface_hub import scan_cache_dir

    return scan_cache_dir(client.cache).warnings

"""How apply-delta grows with the model: time and memory at several sizes, as one document.

    python -m tests.bench.growth --dir DIR --sizes 1 2 4 8 --json docs/explanation/growth.json

Each size in GB is a base and an additive delta of that size, float16 in shards of 500 MB, built in
DIR and deleted again; DIR needs three times the largest size. The rounds of a size follow each
other, after one that is not counted; outputs are removed and the disk is synced before each.

In each round a plain copy of the same bytes takes its turn: `cp` copies the base while `cat` reads
the delta, and `sync` waits until the copy is on the disk, as apply-delta does for its target. So
both read base and delta once, and write as much; what the disk does to one, it does to the other.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any, Final

from tests.bench.measure import Command, Measurement, run

MIB: Final = 1 << 20
_SHARD_NBYTES: Final = 500_000_000
_COLUMNS: Final = 4096
_ROWS: Final = 8192
_COPY: Final = (
    'mkdir "$3" && { cat "$2"/*.safetensors > /dev/null & } && '
    'cp --reflink=never "$1"/*.safetensors "$3" && wait $! && sync "$3"/*'
)


def write_model(folder: Path, nbytes: int, *, scale: float) -> Path:
    """A model of equal matrices whose values are normal, `scale` wide."""
    import numpy as np

    from weightsmith.formats.index import build_index
    from weightsmith.formats.safetensors_header import layout
    from weightsmith.formats.tensors import TensorInfo

    folder.mkdir(parents=True)
    values = np.random.default_rng(7).standard_normal((_ROWS, _COLUMNS), "float32") * scale
    block = values.astype("<f2").tobytes()
    count = -(-nbytes // len(block))
    a_shard = max(_SHARD_NBYTES // len(block), 1)
    infos = [
        TensorInfo(f"model.layers.{number}.mlp.up_proj.weight", "F16", (_ROWS, _COLUMNS))
        for number in range(count)
    ]
    shards = [infos[at : at + a_shard] for at in range(0, count, a_shard)]
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        with (folder / name).open("wb") as file:
            file.write(layout(shard, {"format": "pt"})[0])
            for _ in shard:
                file.write(block)
        weight_map |= dict.fromkeys((info.name for info in shard), name)
    index = build_index(weight_map, count * len(block))
    (folder / "model.safetensors.index.json").write_bytes(index)
    (folder / "config.json").write_text('{"model_type": "llama", "torch_dtype": "float16"}')
    return folder


def measure(work: Path, size_gb: float, rounds: int) -> dict[str, Any]:
    """Median figures of one size."""
    shutil.rmtree(work, ignore_errors=True)
    nbytes = int(size_gb * 1e9)
    base = write_model(work / "base", nbytes, scale=0.02)
    delta = write_model(work / "delta", nbytes, scale=0.001)
    argv = [sys.executable, "-m", "weightsmith", "apply-delta", "--no-repair"]
    argv += ["--base", str(base), "--delta", str(delta), "--target", str(work / "target")]
    copying = ["sh", "-c", _COPY, "sh", str(base), str(delta), str(work / "copy")]
    applied: list[Measurement] = []
    copied: list[Measurement] = []
    for _ in range(rounds + 1):
        os.sync()
        applied.append(run(Command("apply-delta", argv), work / "log.txt"))
        made = sum(path.stat().st_size for path in (work / "target").iterdir())
        shutil.rmtree(work / "target")
        os.sync()
        copied.append(run(Command("copy", copying), work / "log.txt"))
        shutil.rmtree(work / "copy")
    shutil.rmtree(work)
    counted, copies = applied[1:], copied[1:]
    return {
        "gb": made / 1e9,
        "wall_s": statistics.median(each.wall_s for each in counted),
        "cpu_s": statistics.median(each.cpu_s for each in counted),
        "peak_mib": statistics.median(each.peak_bytes for each in counted) / MIB,
        "from_disk_gb": statistics.median(each.fetched_bytes or 0 for each in counted) / 1e9,
        "copy_s": statistics.median(each.wall_s for each in copies),
        "copy_from_disk_gb": statistics.median(each.fetched_bytes or 0 for each in copies) / 1e9,
    }


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--sizes", type=float, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    sizes = [measure(asked.dir / "growth", size, asked.rounds) for size in asked.sizes]
    memory_gb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    document = {
        "cores": os.cpu_count(),
        "memory_gb": memory_gb,
        "rounds": asked.rounds,
        "sizes": sizes,
    }
    asked.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Make frozen payloads, once for each version of the format:
`python -m tests.codecs.low_rank.freeze`.

What lies in `frozen/` is never made again; a later version of the format adds its own cases.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.low_rank_matrices import encode, merged, with_integers

FROZEN = Path(__file__).parent / "frozen"
CASES: dict[str, tuple[str, str, tuple[int, ...], int, dict[str, Any]]] = {
    "matrix": ("BF16", "BF16", (40, 30), 3, {}),
    "rounded": ("F16", "F16", (40, 30), 3, {"product_rounded": True}),
    "stack": ("F16", "F16", (3, 20, 10), 2, {"exponents": (-38, -40, -44)}),
    "cast": ("F32", "BF16", (40, 30), 1, {}),
    "wide": ("F32", "F32", (20, 12), 2, {}),
    "convolution": ("BF16", "F16", (12, 5, 3, 3), 2, {}),
}


def main() -> None:
    FROZEN.mkdir()
    rng = np.random.default_rng(20261127)
    table: dict[str, tuple[str, str, tuple[int, ...], int]] = {}
    for name, (base_dtype, dtype, shape, rank, head) in CASES.items():
        changed = merged(shape, rank, dtype, base_dtype=base_dtype, seed=len(table))
        geometry = changed.geometry
        sizes = [(geometry.columns, rank)] * geometry.slices
        rights = [rng.integers(-(1 << 16), 1 << 16, size) for size in sizes]
        left = rng.integers(-(1 << 16), 1 << 16, (geometry.slices * geometry.rows, rank))
        prediction = with_integers(changed, left, rights, head)
        files = {
            "base": changed.base_data,
            "target": changed.target_data,
            "payload": encode(changed, prediction),
        }
        for role, data in files.items():
            (FROZEN / f"{name}.{role}").write_bytes(data)
        table[name] = (base_dtype, dtype, shape, rank)
    (FROZEN / "cases.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()

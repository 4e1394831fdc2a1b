"""Make frozen payloads, once for each version of the format: `python -m tests.codecs.exact.freeze`.

What lies in `frozen/` is never made again; a later version of the format adds its own cases.
"""

import json
from pathlib import Path

import numpy as np

from tests.support.exact_payloads import Content, content, encode

FOLDER = Path(__file__).parent


def main() -> None:
    """What the last version of the format added."""
    freeze(FOLDER / "frozen_coded", coded())


def coded() -> dict[str, tuple[Content | None, Content]]:
    """Spans that are coded by class, of version 2."""
    rng = np.random.default_rng(20261127)
    weights = rng.normal(0, 0.02, 4200).astype("<f4")
    trained = (weights + rng.normal(0, 0.0004, 4200)).astype("<f4")
    trained[[7, 900]] = [np.inf, -3]  # exceptions
    many = rng.normal(0, 0.02, 33000).astype("<f2")
    rows = many.copy()
    rows[5000:9000] += rng.normal(0, 0.0004, 4000).astype("<f2")
    bits = _bf16(trained)
    return {
        "coded": (_c("BF16", _bf16(weights)), _c("BF16", bits)),
        "coded_new": (None, _c("BF16", bits)),
        "coded_low": (_c("F16", weights.astype("<f2")), _c("F16", trained.astype("<f2"))),
        "coded_wide": (_c("F32", weights), _c("F32", trained)),
        "coded_zeros": (
            _c("F32", weights.view("<u4") & 0xFFFFF000),
            _c("F32", trained.view("<u4") & 0xFFFFF000),
        ),
        "coded_byte": (
            content("F8_E4M3", rng.bytes(4200)),
            content("F8_E4M3", (rng.normal(0, 3, 4200).astype("<i1")).tobytes()),
        ),
        "coded_rows": (_c("F16", many), _c("F16", rows)),
        "coded_grown": (
            _c("BF16", _bf16(weights)[:3000], (300, 10)),
            _c("BF16", bits, (420, 10)),
        ),
    }


def first() -> dict[str, tuple[Content | None, Content]]:
    """What version 1 knows; made then by `freeze(FOLDER / "frozen", first())`."""
    rng = np.random.default_rng(20261121)
    weights = rng.normal(0, 0.02, 1200).astype("<f4")
    trained = (weights + rng.normal(0, 0.0002, 1200)).astype("<f4")
    base, target = (_bf16(each) for each in (weights, trained))
    few = base.copy()
    few[[3, 400, 401, 1100]] += 1
    noise = rng.bytes(600)
    steps = rng.integers(-3, 4, 600).astype(np.uint8)
    quantised = rng.integers(0, 256, 600).astype(np.uint8)
    return {
        "planes": (_c("BF16", base), _c("BF16", target)),
        "sparse": (_c("BF16", base), _c("BF16", few)),
        "stored": (content("F16", noise[:300]), content("F16", noise[300:])),
        "same": (_c("BF16", base), _c("BF16", base)),
        "new": (None, _c("BF16", base)),
        "grown": (_c("BF16", base[:800], (80, 10)), _c("BF16", target, (120, 10))),
        "cast": (_c("F32", weights), _c("F16", trained.astype("<f2"))),
        "odd": (_c("F16", weights[:601].astype("<f2")), _c("F16", trained[:601].astype("<f2"))),
        "bytes": (_c("I8", quantised), _c("I8", quantised + steps)),
        "float8": (_c("F8_E4M3", quantised), _c("F8_E4M3", quantised + steps)),
        "wide": (_c("F32", weights[:500]), _c("F32", trained[:500])),
    }


def freeze(folder: Path, cases: dict[str, tuple[Content | None, Content]]) -> None:
    """Write base, target and payload of each case, and what they are."""
    folder.mkdir()
    table = {}
    for name, (known, wanted) in cases.items():
        parts = {"target": wanted} if known is None else {"base": known, "target": wanted}
        table[name] = {role: (each.info.dtype, each.info.shape) for role, each in parts.items()}
        for role, each in parts.items():
            (folder / f"{name}.{role}").write_bytes(each.data)
        (folder / f"{name}.payload").write_bytes(encode(known, wanted))
    (folder / "cases.json").write_text(json.dumps(table, indent=1) + "\n")


def _c(dtype: str, values: np.ndarray, shape: tuple[int, ...] | None = None) -> Content:
    return content(dtype, values.tobytes(), shape)


def _bf16(values: np.ndarray) -> np.ndarray:
    """Cut off, not rounded; any BF16 will do."""
    return (values.view("<u4") >> 16).astype("<u2")


if __name__ == "__main__":
    main()

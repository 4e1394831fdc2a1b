"""Size and speed of the rule *exact* beside other ways to store one model against another.

    python -m tests.bench.exact [--quick] [--zipnn PYTHON] [--json FILE]

Sizes are shares of the target's bytes, speeds GB of target a second of one core's time, the highest
of several runs. *floor* is the conditional entropy of the target given the base, which no coding of
independent weights can go below. *portable* is ``make-delta --portable``, which needs nothing
compiled. *XOR* is XOR, byte planes, zstd level 3 (ZipLLM, BitX). *zstd* is
``zstd -3 --patch-from``, *zipnn* its delta; ``-`` where there is none of it here. Sizes of a whole
model are those of all its payloads, tables included. What these make of files of a model, and how
fast, is in the section ``exact`` of `bench`.
"""

import argparse
import dataclasses
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import zstandard

from tests.bench.peers import RIVALS
from tests.bench.report import Goal, verdicts
from tests.support import tiny
from tests.support.exact_payloads import Content, content, decode, encode
from weightsmith.formats.tensors import DTYPE_BITS

SIGMA = 0.02
WEIGHTS = 1 << 22
CODES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}
ZIPNN_NAMES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}


@dataclass(frozen=True)
class Case:
    name: str
    tensors: list[tuple[Content, Content]]
    """Base and target of each."""
    floor: float | None = None
    limits: tuple[tuple[str, float], ...] = ()
    """What our size may be at most, in words and as a share."""
    beats_xor: bool = True
    """Whether it should be at most 0.9 times that of XOR; noise leaves both little to gain."""

    @property
    def nbytes(self) -> int:
        return sum(target.info.nbytes for _, target in self.tensors)


@dataclass(frozen=True)
class Row:
    """What was found of one case."""

    case: str
    ours: float
    floor: float | None
    portable: float
    xor: float
    zstd: float | None
    zipnn: float | None
    encode: float
    decode: float
    portable_encode: float
    portable_decode: float
    xor_encode: float

    def __str__(self) -> str:
        sizes = (self.ours, self.floor, self.portable, self.xor, self.zstd, self.zipnn)
        speeds = (
            self.encode,
            self.decode,
            self.portable_encode,
            self.portable_decode,
            self.xor_encode,
        )
        shown = "".join(f"{'-' if size is None else f'{size:.4f}':>9}" for size in sizes)
        return f"{self.case:26}{shown}  " + "".join(f"{speed:8.2f}" for speed in speeds)


HEADINGS = " " * 26 + ("{:>9}" * 6 + "  " + "{:>8}" * 5).format(
    *("size", "floor", "portable", "XOR", "zstd", "zipnn"),
    *("encode", "decode", "portable", "decode", "XOR"),
)


def cases(weights: int = WEIGHTS) -> Iterator[Case]:
    """What weights go through: training in two precisions, a step of reinforcement learning."""
    for half in (torch.float16, torch.bfloat16):
        for change in (0.05, 0.01):
            floor = conditional_entropy(half, change)
            limits = (("1.015 x its floor", 1.015 * floor),)
            pair = trained(half, change, weights=weights)
            yield Case(f"{CODES[half]}, change {change}", [pair], floor, limits)
    yield Case("F32, change 0.01", [trained(torch.float32, 0.01, weights=weights)], beats_xor=False)
    few = few_changed(weights=weights)
    yield Case("BF16, 1 % changed", [few], None, (("1/30 of raw", 1 / 30),))
    slight = trained(torch.bfloat16, 1e-5, master=True, weights=weights)
    yield Case("BF16, change 0.00001", [slight])
    noise = unrelated(weights=weights)
    yield Case("BF16, unrelated bits", [noise], None, (("raw + 0.1 %", 1.001),), beats_xor=False)


def finetunes() -> Iterator[Case]:
    """A small LLaMA that was really trained, at a rate for fine-tuning and at one for training."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = Path(folder) / "tokenizer.model"
        tiny.train_sentencepiece(tokenizer)
        base = tiny.train_llama(tokenizer)
        for rate in (2e-5, 1.5e-3):
            target = tiny.finetune(base, tokenizer, rate=rate)
            for dtype in (torch.float16, torch.bfloat16):
                pairs = [
                    (as_content(before.to(dtype)), as_content(after.to(dtype)))
                    for before, after in zip(base.parameters(), target.parameters(), strict=True)
                ]
                yield Case(f"tiny LLaMA {CODES[dtype]}, lr {rate:g}", pairs, beats_xor=rate < 1e-4)


def trained(
    dtype: torch.dtype, change: float, *, master: bool = False, weights: int = WEIGHTS
) -> tuple[Content, Content]:
    """Normal weights, and the same after a normal change; with `master`, of unrounded weights."""
    generator = torch.Generator().manual_seed(0)
    masters = torch.randn(weights, generator=generator) * SIGMA
    step = torch.randn(weights, generator=generator) * SIGMA * change
    base = masters.to(dtype)
    start = masters if master else base.float()
    return as_content(base), as_content((start + step).to(dtype))


def few_changed(*, weights: int = WEIGHTS) -> tuple[Content, Content]:
    """One weight in a hundred moved by one unit in the last place."""
    base, _ = trained(torch.bfloat16, 0, weights=weights)
    rng = np.random.default_rng(0)
    bits = np.frombuffer(base.data, "<i2").copy()
    bits[rng.random(weights) < 0.01] += rng.choice(np.array([-1, 1], "<i2"))
    return base, content("BF16", bits.tobytes())


def unrelated(*, weights: int = WEIGHTS) -> tuple[Content, Content]:
    """Bits that nothing is known of."""
    rng = np.random.default_rng(0)
    base, target = (content("BF16", rng.bytes(2 * weights)) for _ in range(2))
    return base, target


def as_content(tensor: torch.Tensor) -> Content:
    data: bytes = tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return content(CODES[tensor.dtype], data, tuple(tensor.shape))


def conditional_entropy(dtype: torch.dtype, change: float, samples: int = 1000) -> float:
    """Of a rounded target given a rounded base, as a share of the dtype's bits."""
    double = torch.float64
    shares = (torch.arange(samples, dtype=double) + 0.5) / samples
    bases = (torch.special.ndtri(shares) * SIGMA).to(dtype).double()
    values = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype).double()
    values = values[values.isfinite()].sort().values
    edges, sigma, bits = (values[1:] + values[:-1]) / 2, SIGMA * change, 0.0
    for base in bases:
        near = edges[(edges > base - 10 * sigma) & (edges < base + 10 * sigma)]
        below = torch.special.ndtr((near - base) / sigma)
        ends = torch.tensor([0, 1], dtype=double)
        shares = torch.cat([ends[:1], below, ends[1:]]).diff()
        bits += float(torch.special.entr(shares).sum()) / np.log(2)
    return bits / samples / 16


def xor_planes(base: Content, target: Content) -> bytes:
    """The recipe of ZipLLM and BitX."""
    width = DTYPE_BITS[target.info.dtype] // 8
    both = (np.frombuffer(each.data, np.uint8).reshape(-1, width) for each in (base, target))
    compressor = zstandard.ZstdCompressor(level=3)
    planes = np.ascontiguousarray(np.bitwise_xor(*both).T)
    return b"".join(compressor.compress(plane.data) for plane in planes)


def zstd_patch(case: Case) -> float | None:
    """The share that ``zstd --patch-from`` leaves, where zstd is installed."""
    program = shutil.which("zstd")
    if program is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        base, target = written(case, Path(folder))
        out = Path(folder) / "out"
        argv = [program, "-q", "-3", "-T1", f"--patch-from={base}", str(target), "-o", str(out)]
        subprocess.run(argv, check=True, stderr=subprocess.DEVNULL)
        return out.stat().st_size / case.nbytes


def zipnn_delta(case: Case, python: str | None) -> float | None:
    """The share that zipnn leaves, with the interpreter that has it."""
    if python is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        base, target = written(case, Path(folder))
        out = Path(folder) / "out"
        program = [python, "-W", "ignore", str(RIVALS / "zipnn_delta.py"), "compress"]
        dtype = ZIPNN_NAMES[case.tensors[0][1].info.dtype]
        subprocess.run([*program, base.parent, target.parent, out, dtype], check=True)
        return (out / target.name).stat().st_size / case.nbytes


def written(case: Case, folder: Path) -> tuple[Path, Path]:
    """All tensors of base and of target as the bytes of a file each."""
    paths = [folder / side / "all.safetensors" for side in ("base", "target")]
    for side, path in enumerate(paths):
        path.parent.mkdir()
        path.write_bytes(b"".join(pair[side].data for pair in case.tensors))
    return paths[0], paths[1]


def speed(case: Case, work: Callable[[], object], rounds: int = 5) -> float:
    """GB of target a second of this thread's time."""
    taken = []
    for _ in range(rounds):
        start = time.thread_time()
        work()
        taken.append(time.thread_time() - start)
    return case.nbytes / min(taken) / 1e9


def measured(case: Case, zipnn: str | None) -> Row:
    """Sizes and speeds, once the targets came back.

    Raises: ValueError, if they do not.
    """

    def encode_all(*, portable: bool = False) -> list[bytes]:
        return [
            encode(base, target, check=False, portable=portable) for base, target in case.tensors
        ]

    def xor_all() -> list[bytes]:
        return [xor_planes(base, target) for base, target in case.tensors]

    def decode_all(payloads: list[bytes]) -> list[bytes]:
        return [
            decode(base, payload, target.info)
            for (base, target), payload in zip(case.tensors, payloads, strict=True)
        ]

    ours, portable = encode_all(), encode_all(portable=True)
    for payloads in (ours, portable):
        if decode_all(payloads) != [target.data for _, target in case.tensors]:
            raise ValueError(f"{case.name} does not come back")
    return Row(
        case=case.name,
        ours=sum(map(len, ours)) / case.nbytes,
        floor=case.floor,
        portable=sum(map(len, portable)) / case.nbytes,
        xor=sum(map(len, xor_all())) / case.nbytes,
        zstd=zstd_patch(case),
        zipnn=zipnn_delta(case, zipnn),
        encode=speed(case, encode_all),
        decode=speed(case, partial(decode_all, ours)),
        portable_encode=speed(case, partial(encode_all, portable=True)),
        portable_decode=speed(case, partial(decode_all, portable)),
        xor_encode=speed(case, xor_all),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="few weights, and none of a model")
    parser.add_argument("--zipnn", metavar="PYTHON", help="an interpreter that has zipnn")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the same as one document")
    asked = parser.parse_args()
    rows: list[Row] = []
    goals: list[Goal] = []
    print(HEADINGS)
    for case in cases(1 << 16) if asked.quick else (*cases(), *finetunes()):
        row = measured(case, asked.zipnn)
        print(row, flush=True)
        rows.append(row)
        goals.append(Goal(f"{case.name}: portable", row.ours, row.portable))
        goals += [Goal(f"{case.name}: {what}", row.ours, limit) for what, limit in case.limits]
        if case.beats_xor:
            goals.append(Goal(f"{case.name}: 0.9 x XOR", row.ours, 0.9 * row.xor))
    if asked.json:
        document = {
            "cases": [dataclasses.asdict(row) for row in rows],
            "goals": [dataclasses.asdict(goal) for goal in goals],
        }
        asked.json.write_text(json.dumps(document))
    else:
        print(f"\n{verdicts(goals)}")


if __name__ == "__main__":
    main()

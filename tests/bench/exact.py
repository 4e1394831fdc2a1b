"""Size and speed of the rule *exact* beside other ways to store one model against another.

    python -m tests.bench.exact

Sizes are shares of the target's bytes, speeds GB of target a second of one core's time, the lowest
of several runs. *floor* is the conditional entropy of the target given the base, which no coding of
independent weights can go below. *XOR* is XOR, byte planes, zstd level 3 (ZipLLM, BitX). *patch* is
``zstd -3 --patch-from``. Sizes of a whole model are those of all its payloads, tables included.
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import zstandard

from tests import tiny
from tests.bench.report import Goal
from tests.codecs_exact.payloads import Content, content, decode, encode
from weightsmith.formats.tensors import DTYPE_BITS

SIGMA = 0.02
WEIGHTS = 1 << 22
CODES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}


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


def cases() -> Iterator[Case]:
    """What weights go through: training in two precisions, a step of reinforcement learning."""
    for half in (torch.float16, torch.bfloat16):
        for change in (0.05, 0.01):
            floor = conditional_entropy(half, change)
            limits = (("1.08 x its floor", 1.08 * floor),)
            yield Case(f"{CODES[half]}, change {change}", [trained(half, change)], floor, limits)
    yield Case("F32, change 0.01", [trained(torch.float32, 0.01)], beats_xor=False)
    yield Case("BF16, 1 % changed", [few_changed()], None, (("1/30 of raw", 1 / 30),))
    yield Case("BF16, change 0.00001", [trained(torch.bfloat16, 1e-5, master=True)])
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


def patch(case: Case) -> float | None:
    """The share that ``zstd --patch-from`` leaves, where zstd is installed."""
    program = shutil.which("zstd")
    if program is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        base, target, out = (Path(folder) / name for name in ("base", "target", "out"))
        base.write_bytes(b"".join(each.data for each, _ in case.tensors))
        target.write_bytes(b"".join(each.data for _, each in case.tensors))
        argv = [program, "-q", "-3", "-T1", f"--patch-from={base}", str(target), "-o", str(out)]
        subprocess.run(argv, check=True, stderr=subprocess.DEVNULL)
        return out.stat().st_size / case.nbytes


def speed(case: Case, work: Callable[[], object], rounds: int = 5) -> float:
    """GB of target a second of this thread's time."""
    taken = []
    for _ in range(rounds):
        start = time.thread_time()
        work()
        taken.append(time.thread_time() - start)
    return case.nbytes / min(taken) / 1e9


def figures(case: Case) -> tuple[float, float, str]:
    """Our share, that of XOR, and the row of the table.

    Raises: ValueError, if the targets do not come back.
    """

    def encode_all() -> list[bytes]:
        return [encode(base, target, check=False) for base, target in case.tensors]

    def xor_all() -> list[bytes]:
        return [xor_planes(base, target) for base, target in case.tensors]

    def decode_all() -> list[bytes]:
        return [
            decode(base, payload, target.info)
            for (base, target), payload in zip(case.tensors, payloads, strict=True)
        ]

    payloads = encode_all()
    if decode_all() != [target.data for _, target in case.tensors]:
        raise ValueError(f"{case.name} does not come back")
    ours = sum(map(len, payloads)) / case.nbytes
    theirs = sum(map(len, xor_all())) / case.nbytes
    sizes = [ours, case.floor, theirs, patch(case)]
    speeds = [speed(case, work) for work in (encode_all, decode_all, xor_all)]
    row = f"{case.name:26}" + "".join(f"{'-' if s is None else f'{s:.4f}':>8}" for s in sizes)
    return ours, theirs, row + "  " + "".join(f"{each:8.2f}" for each in speeds)


def main() -> None:
    goals = []
    columns = "".join(f"{name:>8}" for name in ("size", "floor", "XOR", "patch"))
    print(" " * 26 + columns + "  " + "".join(f"{n:>8}" for n in ("encode", "decode", "XOR")))
    for case in cases():
        ours, theirs, row = figures(case)
        print(row, flush=True)
        goals += [Goal(f"{case.name}: {what}", ours, limit) for what, limit in case.limits]
        if case.beats_xor:
            goals.append(Goal(f"{case.name}: 0.9 x XOR", ours, 0.9 * theirs))
    print()
    for goal in goals:
        verdict = "met" if goal.met else "MISSED"
        print(f"  {verdict:8}{goal.what:56}{goal.found:.4f}  at most {goal.limit:.4f}")


if __name__ == "__main__":
    main()

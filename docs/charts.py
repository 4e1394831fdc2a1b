"""The two bar charts of the README, as SVG, out of figures that the benchmark wrote.

``pictures/benchmark.json`` and ``pictures/exact.json`` are its documents as they are, every round
of them: of ``make bench`` with ``--json``, and of ``python -m tests.bench.exact --json``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import median
from typing import Any, Final

WIDTH: Final = 820
_STYLE: Final = """<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328 } .dim { fill: #59636e }
.back { fill: #ffffff } .ours { fill: #0a7d62 } .other { fill: #9aa4af } .head { font-weight: 600 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .dim { fill: #9198a1 }
.back { fill: #0d1117 } .ours { fill: #2fbf9b } .other { fill: #59636e } }
</style>"""


RUNS: Final = (
    ("apply-delta, bin, fschat", "apply-delta", "FastChat 0.2.36"),
    ("apply-delta, bin, fschat --low-cpu-mem", "the same", "FastChat --low-cpu-mem"),
    ("apply-delta, safetensors, mergekit linear", "the same", "mergekit 0.1.5 linear"),
    ("merge-lora, r = 16, all linear layers", "merge-lora", "peft 0.21"),
    ("convert, Meta's files", "convert, Meta's files", "transformers 4.46.3"),
)
"""The benchmark's contests that are drawn, what is done, and beside whom."""
CASES: Final = {
    "F16, change 0.05": "fp16, change 0.05",
    "F16, change 0.01": "fp16, change 0.01",
    "BF16, change 0.05": "bf16, change 0.05",
    "BF16, change 0.01": "bf16, change 0.01",
    "BF16, 1 % changed": "bf16, 1 % of weights changed",
    "tiny LLaMA BF16, lr 2e-05": "tiny LLaMA fine-tuned, bf16",
}
"""The benchmark's cases of exact deltas that are drawn, and what they are called."""
TOOLS: Final = {
    "ours": "weightsmith",
    "xor": "XOR + byte planes + zstd-3",
    "zipnn": "zipnn",
    "zstd": "zstd --patch-from",
}
"""Columns of these cases, and the tools that they are of."""
MIB: Final = 1 << 20


def charts(folder: Path) -> dict[str, str]:
    """Each chart by its file's name."""
    runs, exact = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("benchmark.json", "exact.json")
    )
    return {"speed.svg": _speed(runs), "sizes.svg": _sizes(exact["cases"])}


@dataclass(frozen=True, slots=True)
class Run:
    """A contest: medians over its rounds."""

    what: str
    beside: str
    times: Sequence[float]
    """Ours over theirs, of each round."""
    ours_mib: int
    theirs_mib: int

    @property
    def time(self) -> float:
        """The median of `times`."""
        return median(self.times)

    def __str__(self) -> str:
        """The median, and how far rounds were apart."""
        return f"{self.time:.2f} ({min(self.times):.2f} to {max(self.times):.2f})"


def runs(known: Mapping[str, Any]) -> list[Run]:
    """What is drawn of the benchmark's contests."""
    held = {contest["title"]: contest["rounds"] for contest in known["contests"]}
    return [
        Run(
            what,
            beside,
            [ours["wall_s"] / theirs["wall_s"] for ours, theirs in held[title]],
            *(round(median(done[side]["peak_bytes"] for done in held[title]) / MIB)
              for side in (0, 1)),
        )
        for title, what, beside in RUNS
    ]  # fmt: skip


def _speed(known: Mapping[str, Any]) -> str:
    """Time and memory, ours above theirs, each pair to its own scale of 1."""
    drawn = runs(known)
    most = max(run.theirs_mib for run in drawn)
    size = f"models of {known['full_nbytes'] / 1e9:.2f} GB"
    parts = [
        _text(12, 24, size, "dim"),
        _text(250, 24, "time, theirs is 1", "head"),
        _text(540, 24, "peak memory, MiB", "head"),
    ]
    for row, run in enumerate(drawn):
        y = 40 + row * 54
        parts.append(_text(12, y + 16, run.what))
        parts.append(_text(12, y + 33, f"beside {run.beside}", "dim"))
        parts += _bar(250, y + 4, run.time * 190, "ours", str(run))
        parts += _bar(250, y + 22, 190, "other", "1")
        parts += _bar(540, y + 4, run.ours_mib / most * 190, "ours", f"{run.ours_mib}")
        parts += _bar(540, y + 22, run.theirs_mib / most * 190, "other", f"{run.theirs_mib}")
    said = "; ".join(
        f"{run.what}: {run} of the time of {run.beside}, {run.ours_mib} beside {run.theirs_mib} MiB"
        for run in drawn
    )
    return _svg(parts, 48 + 54 * len(drawn), f"{size}; {said}")


def _sizes(cases: Sequence[Mapping[str, Any]]) -> str:
    """A delta's share of its target, by each tool that was there."""
    found = {case["case"]: case for case in cases}
    parts, y = [_text(12, 24, "size of a delta, as a share of the model", "head")], 12
    for case, what in CASES.items():
        y += 28
        parts.append(_text(12, y + 13, what))
        for column, tool in TOOLS.items():
            share = found[case][column]
            if share is not None:
                kind = "ours" if column == "ours" else "other"
                parts += _bar(250, y + 1, share * 330, kind, f"{share:.2g}  {tool}")
                y += 17
    said = "; ".join(f"{what}: {found[case]['ours']:.2g}" for case, what in CASES.items())
    return _svg(parts, y + 20, f"Shares of weightsmith's deltas: {said}")


def _bar(x: float, y: float, length: float, kind: str, label: str) -> list[str]:
    length = max(length, 1.5)
    bar = f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{length:.1f}" height="14" rx="2"/>'
    return [bar, _text(x + length + 6, y + 12, label, "dim")]


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:g}">{escape(text)}</text>'


def _svg(parts: Sequence[str], height: int, said: str) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' role="img" aria-label="{escape(said)}">'
    )
    back = f'<rect class="back" width="{WIDTH}" height="{height}" rx="8"/>'
    return "\n".join([head, _STYLE, back, *parts, "</svg>", ""])

"""The two bar charts of the README, as SVG, of what the benchmark found (`figures`)."""

from collections.abc import Mapping, Sequence
from html import escape
from statistics import median
from typing import Any, Final

import figures
from figures import Run

WIDTH: Final = 820
_TIME: Final = 280
_MEMORY: Final = 560
"""Where bars begin."""
_LONGEST: Final = 180
_STYLE: Final = """<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328 } .dim { fill: #59636e }
.back { fill: #ffffff } .ours { fill: #0a7d62 } .other { fill: #9aa4af } .head { font-weight: 600 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .dim { fill: #9198a1 }
.back { fill: #0d1117 } .ours { fill: #2fbf9b } .other { fill: #59636e } }
</style>"""


CASES: Final = [case for case in figures.CASES if case != "tiny LLaMA F16, lr 2e-05"]
"""The cases of exact deltas that are drawn."""
TOOLS: Final = {
    "ours": "weightsmith",
    "xor": "XOR + byte planes + zstd-3",
    "zipnn": "zipnn",
    "zstd": "zstd --patch-from",
}
"""Columns of these cases, and the tools that they are of."""


def charts(found: Mapping[str, Any]) -> dict[str, str]:
    """Each chart by its file's name, of what the benchmark found."""
    drawn = [run for run in figures.runs(found, figures.CONTESTS) if run.is_drawn]
    size = f"models of {figures.gigabytes(found['nbytes']['full'])}"
    return {"speed.svg": _speed(drawn, size), "sizes.svg": _sizes(found["exact"]["cases"])}


def _speed(drawn: Sequence[Run], size: str) -> str:
    """Time and memory, ours above theirs, each pair to its own scale of 1."""
    most = max(run.peak_mib(1) for run in drawn)
    parts = [
        _text(12, 24, size, "dim"),
        _text(_TIME, 24, "time, theirs is 1", "head"),
        _text(_MEMORY, 24, "peak memory", "head"),
    ]
    for row, run in enumerate(drawn):
        y = 40 + row * 54
        parts.append(_text(12, y + 16, run.what.replace("`", "")))
        parts.append(_text(12, y + 33, f"beside {run.beside}".replace("`", ""), "dim"))
        parts += _bar(_TIME, y + 4, median(run.times) * _LONGEST, "ours", run.ratio)
        parts += _bar(_TIME, y + 22, _LONGEST, "other", "1")
        for side, (kind, below) in enumerate({"ours": 4, "other": 22}.items()):
            length = run.peak_mib(side) / most * _LONGEST
            parts += _bar(_MEMORY, y + below, length, kind, run.peak(side))
    said = "; ".join(
        f"{run.what}: {run.ratio} of the time of {run.beside}, "
        f"{run.peak(0)} beside {run.peak(1)}".replace("`", "")
        for run in drawn
    )
    return _svg(parts, 48 + 54 * len(drawn), f"{size}; {said}")


def _sizes(cases: Sequence[Mapping[str, Any]]) -> str:
    """A delta's share of its target, by each tool that was there."""
    found = {case["case"]: case for case in cases}
    parts, y = [_text(12, 24, "size of a delta, as a share of the model", "head")], 12
    for case in CASES:
        y += 28
        parts.append(_text(12, y + 13, figures.CASES[case]))
        for column, tool in TOOLS.items():
            share = found[case][column]
            if share is not None:
                kind = "ours" if column == "ours" else "other"
                parts += _bar(250, y + 1, share * 330, kind, f"{figures.share(share, 2)}  {tool}")
                y += 17
    said = "; ".join(
        f"{figures.CASES[case]}: {figures.share(found[case]['ours'], 2)}" for case in CASES
    )
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

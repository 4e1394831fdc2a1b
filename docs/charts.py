"""The two bar charts of the README, as SVG, out of ``pictures/benchmark.json``."""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

WIDTH: Final = 820
_STYLE: Final = """<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328 } .dim { fill: #59636e }
.back { fill: #ffffff } .ours { fill: #0a7d62 } .other { fill: #9aa4af } .head { font-weight: 600 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .dim { fill: #9198a1 }
.back { fill: #0d1117 } .ours { fill: #2fbf9b } .other { fill: #59636e } }
</style>"""


def charts(folder: Path) -> dict[str, str]:
    """Each chart by its file's name."""
    known = json.loads((folder / "benchmark.json").read_text(encoding="utf-8"))
    return {"speed.svg": _speed(known["runs"]), "sizes.svg": _sizes(known["sizes"])}


def _speed(runs: Sequence[dict[str, Any]]) -> str:
    """Time and memory, ours above theirs, each pair to its own scale of 1."""
    most = max(run["theirs_mib"] for run in runs)
    parts = [
        _text(250, 24, "time, theirs is 1", "head"),
        _text(540, 24, "peak memory, MiB", "head"),
    ]
    for row, run in enumerate(runs):
        y = 40 + row * 54
        parts.append(_text(12, y + 16, run["what"]))
        parts.append(_text(12, y + 33, f"beside {run['beside']}", "dim"))
        parts += _bar(250, y + 4, run["time"] * 190, "ours", f"{run['time']:.2f}")
        parts += _bar(250, y + 22, 190, "other", "1")
        parts += _bar(540, y + 4, run["ours_mib"] / most * 190, "ours", f"{run['ours_mib']}")
        parts += _bar(540, y + 22, run["theirs_mib"] / most * 190, "other", f"{run['theirs_mib']}")
    said = "; ".join(
        f"{run['what']}: {run['time']:.2f} of the time of {run['beside']},"
        f" {run['ours_mib']} beside {run['theirs_mib']} MiB"
        for run in runs
    )
    return _svg(parts, 48 + 54 * len(runs), said)


def _sizes(sizes: dict[str, Any]) -> str:
    """A delta's share of its target, by each tool."""
    tools, parts, y = sizes["tools"], [], 12
    parts.append(_text(12, 24, "size of a delta, as a share of the model", "head"))
    for model in sizes["models"]:
        y += 28
        parts.append(_text(12, y + 13, model["what"]))
        for tool, share in zip(tools, model["shares"], strict=True):
            kind = "ours" if tool == tools[0] else "other"
            parts += _bar(250, y + 1, share * 330, kind, f"{share:.2g}  {tool}")
            y += 17
    said = "; ".join(f"{each['what']}: {each['shares'][0]}" for each in sizes["models"])
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

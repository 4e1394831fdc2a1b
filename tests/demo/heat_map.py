"""The picture of the heat map in the README: what the page of ``weightsmith diff`` shows.

    python -m tests.demo.heat_map         writes docs/pictures/heat-map.svg

A tiny LLaMA of 16 layers is trained on stories, a copy of it on chats, and the two are compared.
"""

import tempfile
from collections.abc import Iterator
from contextlib import chdir
from html import escape
from pathlib import Path
from typing import Final

import weightsmith
from tests.support import tiny
from tests.support.paths import ROOT
from weightsmith.checkpoint.layers import Position
from weightsmith.cli.diff_page.colours import STEPS, colour
from weightsmith.cli.diff_page.heat_map import Map
from weightsmith.cli.diff_text import format_relative
from weightsmith.ops.diff_result import Difference, Group

PICTURE: Final = ROOT / "docs" / "pictures" / "heat-map.svg"
LAYERS: Final = 16
_NAMES, _CELL, _ROW, _GAP = 188, 30, 22, 2
_WIDTH: Final = _NAMES + _CELL * LAYERS + 112


def main() -> None:
    """Train, compare, draw."""
    with tempfile.TemporaryDirectory() as temporary, chdir(temporary):
        tokenizer = Path("tokenizer.model")
        tiny.train_sentencepiece(tokenizer)
        base = tiny.train_llama(tokenizer, layers=LAYERS)
        tiny.save_llama(base, Path("llama-7b"), tokenizer)
        tiny.save_llama(tiny.finetune(base, tokenizer), Path("vicuna-7b-v1.1"), tokenizer)
        found = weightsmith.diff("llama-7b", "vicuna-7b-v1.1")
    PICTURE.write_text(drawn(found), encoding="utf-8")
    print(PICTURE.relative_to(ROOT))


def drawn(found: Difference) -> str:
    """The map and its legend, in the page's colours, light or dark as the reader's screen is."""
    shown = Map.of(found)
    rows, y = list(_rows(shown)), 0
    parts = [
        _text(_NAMES + _CELL * at + 14, 30, str(n), "num") for at, n in enumerate(shown.layers)
    ]
    parts.append(_text(_NAMES + _CELL * LAYERS + 12, 30, "all layers", "dim"))
    for number, (name, cells, whole, apart) in enumerate(rows):
        y = 40 + _ROW * number + 10 * apart
        parts.append(_text(14, y + 15, name))
        for layer, group in cells.items():
            at = _NAMES + _CELL * list(shown.layers).index(layer)
            parts.append(_square(shown, group, at, y, _CELL - _GAP))
        if whole:
            at = _NAMES + _CELL * LAYERS + 12
            parts.append(_square(shown, whole, at, y, 14))
            number_of = format_relative(whole.measure.relative) if whole.different else "same"
            parts.append(_text(at + 22, y + 15, number_of))
    y += _ROW + 16
    parts.extend(
        f'<rect class="t{step}" x="{14 + 6 * step}" y="{y}" width="6" height="10"/>'
        for step in range(STEPS + 1)
    )
    scale = shown.scale
    for at, mark in ((14, scale.low), (14 + 128, scale.middle), (14 + 264, scale.high)):
        parts.append(_text(at, y + 26, format_relative(mark), "dim"))
    parts.append(_text(340, y + 10, "relative change of the weights, from A to B", "dim"))
    return _svg(parts, y + 40, found)


def _rows(shown: Map) -> Iterator[tuple[str, dict[int, Group], Group | None, int]]:
    """Name, groups by layer, the whole, and how many gaps are above it."""
    for kind, whole in shown.kinds.items():
        cells = {
            n: shown.cells[at] for n in shown.layers if (at := Position(n, kind)) in shown.cells
        }
        yield kind, cells, whole, 0
    yield "all of a layer", shown.layers, None, 1
    for place, group in shown.cells.items():
        if place.layer is None:
            yield place.kind, {}, group, 2


def _square(shown: Map, group: Group, x: int, y: int, width: int) -> str:
    height = 14 if width == 14 else _ROW - _GAP
    top = y + (_ROW - _GAP - height) // 2
    look = shown.look(group)
    return f'<rect class="{look}" x="{x}" y="{top}" width="{width}" height="{height}" rx="3"/>'


def _text(x: int, y: int, text: str, look: str = "") -> str:
    return f'<text class="{look}" x="{x}" y="{y}">{escape(text)}</text>'


def _svg(parts: list[str], height: int, found: Difference) -> str:
    light, dark = (
        "\n".join(f".t{n} {{ fill: {colour(n, dark=each)} }}" for n in range(STEPS + 1))
        for each in (False, True)
    )
    said = f"Heat map of what changed from {found.a} to {found.b}, by layer and kind of module"
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" \
width="{_WIDTH}" role="img" aria-label="{escape(said)}">
<style>
text {{ font: 13px system-ui, sans-serif; fill: #1d1c22; font-variant-numeric: tabular-nums }}
.back {{ fill: #fbfaf8 }} .dim, .num {{ fill: #605e69; font-size: 11px }}
.num {{ text-anchor: middle }}
.same, .odd {{ fill: none; stroke: #8b8894 }}
{light}
@media (prefers-color-scheme: dark) {{
text {{ fill: #ebeaf0 }} .back {{ fill: #16151b }} .dim, .num {{ fill: #a8a5b5 }}
{dark}
}}
</style>
<rect class="back" width="{_WIDTH}" height="{height}" rx="8"/>
{chr(10).join(parts)}
</svg>
"""


if __name__ == "__main__":
    main()

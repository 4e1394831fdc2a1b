"""The whole page: a verdict, totals, the heat map, the histogram, all tensors, and provenance."""

import base64
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from string import Template
from typing import Final

from weightsmith.cli.diff_page import histogram, tensor_table
from weightsmith.cli.diff_page.colours import STEPS, colour
from weightsmith.cli.diff_page.heat_map import Map
from weightsmith.cli.diff_page.text import name, text
from weightsmith.cli.diff_text import format_statuses, numbers
from weightsmith.ops.diff_result import Difference, Side
from weightsmith.units import format_count, format_size
from weightsmith.version import __version__

_LEAST_CELLS: Final = (("", 13, ""), ("@media (max-width: 700px) {", 24, "}"))
"""Pixels of a layer's column of the heat map, at least, on wide screens and on narrow ones, where
fingers point; what has no room then scrolls.
"""
_WITHOUT_LAYERS: Final = 340
"""Pixels of the map's names and totals."""
_ORDER: Final = (
    "Tensors that are in one model only or of another shape or dtype come first, then those that"
    " changed most."
)
_ULPS: Final = """<p>Counted in steps from one float to the next that its dtype can hold, its unit
in the last place. Steps grow with the numbers: near 1 a step is 0.0078 in bfloat16 and 0.00098 in
float16, near 0.01 it is a 128th of that. So steps measure a change against a weight's own
precision.</p>
<p>0 are the same bits, and 1 is the nearest neighbour. In bfloat16 128 steps double a number, in
float16 1024. Steps are counted across 0 too, so that a change of sign is very many.</p>"""


@dataclass(frozen=True, slots=True)
class Made:
    """How a page came about."""

    command: str
    """As it can be typed again."""
    folder: str
    """Where it was run."""
    at: datetime


def render_page(found: Difference, made: Made) -> str:
    """The page, which opens no connection and needs no other file."""
    shown = Map.of(found)
    style = _file("page.css") + "".join([*_colours(), *_least_widths(len(shown.layers))])
    script = _file("page.js")
    return Template(_file("page.html")).substitute(
        policy=_policy(style, script),
        version=text(__version__),
        title=f"{text(found.a)} → {text(found.b)}",
        style=style,
        a=name(found.a),
        b=name(found.b),
        kind="equal" if found.equal else "different",
        verdict=_verdict(found),
        facts="".join(_facts(found)),
        notes=_notes(found.notes),
        map="" if found.equal else _map(shown),
        histogram="" if found.equal else _histogram(found),
        order="" if found.equal else _ORDER,
        filters="".join(tensor_table.filters(found)),
        columns="".join(tensor_table.heads()),
        tensors="".join(tensor_table.rows(found, shown)),
        provenance="".join(_provenance(found, made)),
        script=script,
    )


def _file(of: str) -> str:
    return files(__package__).joinpath(of).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """What a browser may do with the page: its own style and its own script, by their hashes, so
    that no other could run, and no connection.
    """
    sources = {"default": "'none'", "img": "data:", "style": _hash(style), "script": _hash(script)}
    rules = [f"{kind}-src {source}" for kind, source in sources.items()]
    return "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _colours() -> Iterator[str]:
    """A class for each step of the scale, on light pages and on dark ones."""
    for start, dark, end in (("", False, ""), (_DARK, True, "}\n")):
        steps = (f".t{n}{{background:{colour(n, dark=dark)}}}\n" for n in range(STEPS + 1))
        yield f"{start}{''.join(steps)}{end}"


_DARK: Final = "@media screen and (prefers-color-scheme: dark) {\n"


def _least_widths(layers: int) -> Iterator[str]:
    """Of the heat map."""
    for start, cell, end in _LEAST_CELLS:
        yield f"{start}.map{{min-width:{_WITHOUT_LAYERS + cell * layers}px}}{end}\n"


def _verdict(found: Difference) -> str:
    count = len(found.tensors)
    tensors = f"{format_count(count)} tensor{'' if count == 1 else 's'}"
    if found.equal:
        return f"Equal: {tensors}, the same bit for bit"
    return f"Different: {format_count(found.total.different)} of {tensors}"


def _facts(found: Difference) -> Iterator[str]:
    total = found.total.measure
    share, relative, largest = numbers(total)
    facts = [
        ("Tensors", format_count(len(found.tensors)), format_statuses(found)),
        ("Elements changed", share, f"of {format_count(total.numel)} compared"),
    ]
    if not found.equal:
        facts.append(("Relative change", relative, "the change over A, as L2 norms"))
        facts.append(("Largest change", largest, "of any element"))
    for fact, value, detail in facts:
        yield f"<div><dt>{fact}</dt><dd>{value}<small>{detail}</small></dd></div>"


def _notes(notes: Iterable[str]) -> str:
    items = "".join(f"<li>{text(note)}</li>" for note in notes)
    return f'<ul class="notes">{items}</ul>' if items else ""


def _map(shown: Map) -> str:
    return f"""<section aria-labelledby="map">
<h2 id="map">Layers and modules</h2>
<p>The relative change of each: the size of the change over the size of A, as L2 norms. A cell leads
to its tensors.</p>
<div class="wide">
<table class="map">
<caption class="aside">Relative change by module and layer</caption>
{"".join(shown.table())}
</table>
</div>
<div class="legend">{"".join(shown.legend())}</div>
</section>"""


def _histogram(found: Difference) -> str:
    """Nothing where no float moved."""
    counts = found.total.measure.ulps
    if len(counts) < 2:
        return ""
    return f"""<section aria-labelledby="ulps">
<h2 id="ulps">How far elements moved</h2>
<div class="ulps">
<table>
<caption class="aside">Elements by how many steps they moved</caption>
<thead><tr><th scope="col">steps</th><td></td><th scope="col" class="n">share</th>
<th scope="col" class="n">elements</th></tr></thead>
<tbody>{"".join(histogram.rows(counts))}</tbody>
</table>
<div>{_ULPS}</div>
</div>
</section>"""


def _provenance(found: Difference, made: Made) -> Iterator[str]:
    facts = [
        *_side("A", found.a, found.sides[0]),
        *_side("B", found.b, found.sides[1]),
        ("command", made.command),
        ("run in", made.folder),
        ("date", made.at.strftime("%Y-%m-%d %H:%M:%S %Z")),
        ("made by", f"weightsmith {__version__}"),
    ]
    for fact, value in facts:
        yield f"<dt>{fact}</dt><dd>{text(value)}</dd>"


def _side(letter: str, label: str, side: Side) -> Iterator[tuple[str, str]]:
    yield letter, label
    if side.place and side.place != label:
        yield f"{letter} lies in", side.place
    yield f"{letter} holds", f"{format_count(side.tensors)} tensors, {format_size(side.nbytes)}"
    if side.fingerprint:
        yield f"{letter}'s fingerprint", side.fingerprint

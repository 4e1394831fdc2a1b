"""What `diff` found, as one self-contained page: a heat map of layers against kinds of module."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from typing import Final

from weightsmith.checkpoint.layers import Position
from weightsmith.cli.diff_template import PAGE
from weightsmith.cli.diff_text import (
    format_count,
    format_relative,
    format_share,
    format_statuses,
    infos,
    numbers,
)
from weightsmith.codecs.measure import Measure, ulp_range
from weightsmith.errors import printable
from weightsmith.ops.diff import STATUSES, Difference, Group, grouped

_COLUMNS: Final = ("tensor", "dtype and shape", "status", "elements", "relative", "largest")
_SORTED_BY: Final = "relative"
_STEPS: Final = 40
"""Stripes of the legend."""
_RATIO: Final = 1e4
"""How much more the most changed has to change than the least, at most, to differ in colour."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Colours for relative changes: equal ratios are equally far apart."""

    low: float
    high: float

    def colour(self, relative: float) -> str:
        """The style of class ``c``: 0 for `low` and what is less, 1 for `high`."""
        at = math.log(relative / self.low) / math.log(self.high / self.low)
        return f"--t:{min(max(at, 0.0), 1.0):.3f}"


def render_page(found: Difference) -> str:
    """The page, which opens no connection and needs no other file."""
    cells = grouped(found.tensors, lambda tensor: tensor.place)
    scale = _scale(cells.values())
    layers = list(found.layers())
    return PAGE.substitute(
        a=_text(found.a),
        b=_text(found.b),
        facts="".join(_facts(found)),
        notes=_notes(found.notes),
        map_width=f"{24 + 0.8 * len(layers):.0f}em",
        map="".join(_map(found, cells, layers, scale)),
        legend="".join(_legend(scale, cells.values())),
        ulps=_ulps(found),
        columns="".join(map(_column, _COLUMNS)),
        tensors="".join(_rows(found, scale)),
    )


def _text(value: object) -> str:
    """Text of any origin, fit for an element's content or a quoted attribute."""
    return escape(printable(value))


def _scale(groups: Iterable[Group]) -> Scale:
    sizes = [group.measure.relative for group in groups if group.measure.relative]
    high = max(sizes, default=1.0)
    low = max(min(sizes, default=1.0), high / _RATIO)
    widened = max(1.0, math.sqrt(2 * low / high))  # so that what is nearly equal looks so
    return Scale(low / widened, high * widened)


def _facts(found: Difference) -> Iterator[str]:
    total = found.total.measure
    share, relative, largest = numbers(total)
    for name, value, detail in (
        ("Tensors", format_count(len(found.tensors)), format_statuses(found)),
        ("Elements changed", share, f"of {format_count(total.numel)} compared"),
        ("Relative change", relative, "of the size of A"),
        ("Largest change", largest, "of any element"),
    ):
        yield f"<div><span>{name}</span><strong>{value}</strong><span>{detail}</span></div>"


def _notes(notes: Iterable[str]) -> str:
    items = "".join(f"<li>{_text(note)}</li>" for note in notes)
    return f"<ul>{items}</ul>" if items else ""


def _map(
    found: Difference, cells: dict[Position, Group], layers: list[int], scale: Scale
) -> Iterator[str]:
    """The heat map: kinds in layers, each layer, kinds outside of the layers."""
    every = max(1, math.ceil(len(layers) / 40))
    yield f'<colgroup><col class="kind">{"<col>" * len(layers)}<col class="all"></colgroup>'
    yield "<thead><tr><td></td>"
    yield from (f"<th>{'' if at % every else layer}</th>" for at, layer in enumerate(layers))
    yield "<th></th></tr></thead>"
    if layers:
        yield "<tbody>"
        kinds = found.kinds()
        for kind in dict.fromkeys(place.kind for place in cells if place.layer is not None):
            yield f"<tr><th>{_text(kind)}</th>"
            for layer in layers:
                yield _cell(cells.get(Position(layer, kind)), f"layer {layer}, {kind}", scale)
            yield f"{_whole(kinds[kind], kind, scale)}</tr>"
        yield "</tbody><tbody><tr><th>all of a layer</th>"
        yield from (_cell(each, f"layer {n}", scale) for n, each in found.layers().items())
        yield "</tr></tbody>"
    yield "<tbody>"
    for place, group in cells.items():
        if place.layer is None:
            whole = _whole(group, place.kind, scale, columns=len(layers) + 1)
            yield f"<tr><th>{_text(place.kind)}</th>{whole}</tr>"
    yield "</tbody>"


def _cell(group: Group | None, name: str, scale: Scale) -> str:
    return f"<td {_look(group, scale)} {_tip(group, name)}></td>" if group else "<td></td>"


def _whole(group: Group, name: str, scale: Scale, *, columns: int = 1) -> str:
    """A cell for a whole row, with its number."""
    number = format_relative(group.measure.relative) if group.different else "same"
    swatch = f"<i {_look(group, scale)}></i>"
    return f'<td colspan="{columns}"><span {_tip(group, name)}>{swatch}{number}</span></td>'


def _class(group: Group) -> str:
    """Coloured, the same, or odd: different by no size that a colour could show."""
    if group.measure.relative:
        return "c"
    return "odd" if group.different else "same"


def _look(group: Group, scale: Scale) -> str:
    """Class and style of what stands for a group."""
    style = f' style="{scale.colour(group.measure.relative)}"' if group.measure.relative else ""
    return f'class="{_class(group)}"{style}'


def _tip(group: Group, name: str) -> str:
    """What the mouse finds out about a group."""
    share, relative, largest = numbers(group.measure)
    lines = "\n".join(
        (
            printable(name),
            f"relative change: {relative}",
            f"elements changed: {share} of {format_count(group.measure.numel)}",
            f"largest change: {largest}",
            f"tensors that differ: {group.different} of {group.tensors}",
        )
    )
    return f'data-tip="{escape(lines)}"'


def _legend(scale: Scale, groups: Iterable[Group]) -> Iterator[str]:
    """What the looks mean, of those that occur."""
    classes = {_class(group) for group in groups}
    if "c" in classes:
        ramp = "".join(f'<i class="c" style="--t:{at / _STEPS}"></i>' for at in range(_STEPS + 1))
        middle = math.sqrt(scale.low * scale.high)
        marks = "".join(
            f"<b>{format_relative(each)}</b>" for each in (scale.low, middle, scale.high)
        )
        yield f'<div class="ramp"><div>{ramp}</div><div>{marks}</div></div>'
    if "same" in classes:
        yield '<span><i class="same"></i> the same, bit for bit</span>'
    if "odd" in classes:
        yield '<span><i class="odd"></i> differs, without a size</span>'


def _ulps(found: Difference) -> str:
    """How far elements moved, as a bar chart; nothing where no float did."""
    counts = found.total.measure.ulps
    if len(counts) < 2:
        return ""
    bars = []
    for number, count in enumerate(counts):
        tip = f"{ulp_range(number)} ulp: {format_share(count, sum(counts))}"
        least = str(1 << number >> 1) if number < 8 else f"2<sup>{number - 1}</sup>"
        bar = f'<b style="height:{100 * count / max(counts):.2f}%"></b>'
        bars.append(f'<div data-tip="{tip}"><span>{bar}</span>{least}</div>')
    return (
        "<section><h2>How far elements moved</h2><p>In units in the last place: 0, 1, 2 to 3,"
        f' 4 to 7, and so on.</p><div class="bars">{"".join(bars)}</div></section>'
    )


def _column(name: str) -> str:
    """The head of a column, which sorts by it."""
    sort = ' aria-sort="descending"' if name == _SORTED_BY else ""
    side = ' class="n"' if name in {"elements", "relative", "largest"} else ""
    return f"<th{sort}{side}><button>{name}</button></th>"


def _rows(found: Difference, scale: Scale) -> Iterator[str]:
    """All tensors, the most changed first."""
    order = {each.name: at for at, each in enumerate(found.tensors)}
    for tensor in sorted(found.tensors, key=lambda tensor: -tensor.size):
        measure = tensor.measure or Measure()
        share, relative, largest = numbers(tensor.measure)
        swatch = ""
        if tensor.size and measure.relative:
            swatch = f'<i class="c" style="{scale.colour(measure.relative)}"></i>'
        size = "Infinity" if math.isinf(tensor.size) else tensor.size
        numel = max(info.numel for info in (tensor.a, tensor.b) if info)
        yield (
            f'<tr><td data-v="{order[tensor.name]}">{_text(tensor.name)}</td>'
            f'<td class="soft" data-v="{numel}">{_text(infos(tensor))}</td>'
            f'<td class="soft" data-v="{STATUSES.index(tensor.status)}">{tensor.status}</td>'
            f'<td class="n" data-v="{measure.share}">{share}</td>'
            f'<td class="n" data-v="{size}">{swatch}{relative}</td>'
            f'<td class="n" data-v="{measure.largest}">{largest}</td></tr>'
        )

"""The heat map: kinds of module against layers, and the whole of each; every cell leads to rows."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from typing import Final

from weightsmith.checkpoint.layers import Position
from weightsmith.cli.diff_page.colours import STEPS, Scale
from weightsmith.cli.diff_page.text import name
from weightsmith.cli.diff_text import format_relative, numbers
from weightsmith.errors import printable
from weightsmith.ops.diff_result import Difference, Group, grouped
from weightsmith.units import format_count

_NUMBERED: Final = 40
"""How many layers have a number above them, at most."""
OUTSIDE: Final = ""
"""Stands for the layer of what lies outside of all layers, in cells and in rows."""


@dataclass(frozen=True, slots=True)
class Map:
    """All groups that have a cell, and the scale that they share."""

    cells: dict[Position, Group]
    layers: dict[int, Group]
    kinds: dict[str, Group]
    scale: Scale

    @classmethod
    def of(cls, found: Difference) -> "Map":
        """What a difference shows."""
        cells = grouped(found.tensors, lambda tensor: tensor.place)
        inside = [tensor for tensor in found.tensors if tensor.place.layer is not None]
        kinds = grouped(inside, lambda tensor: tensor.place.kind)
        layers = found.layers()
        scale = Scale.of([*cells.values(), *layers.values(), *kinds.values()])
        return cls(cells, layers, kinds, scale)

    @property
    def kind_numbers(self) -> dict[str, int]:
        """A number for every kind, by which cells and rows name it."""
        kinds = dict.fromkeys(place.kind for place in self.cells)
        return {kind: number for number, kind in enumerate(kinds)}

    def look(self, group: Group) -> str:
        """Class of what stands for a group: a step of colour, the same, or odd: different by no
        size that a colour could show.
        """
        if group.measure.relative:
            return f"t{self.scale.step(group.measure.relative)}"
        return "odd" if group.different else "same"

    def table(self) -> Iterator[str]:
        """The whole table, in pieces."""
        layers = list(self.layers)
        columns = f'<col span="{len(layers)}">' if layers else ""
        yield f'<colgroup><col class="kind">{columns}<col class="all"></colgroup>'
        every = max(1, math.ceil(len(layers) / _NUMBERED))
        yield '<thead><tr><th scope="col">module</th>'
        for at, layer in enumerate(layers):
            shown = f'<b aria-hidden="true">{"" if at % every else layer}</b>'
            yield f'<th scope="col"><span class="aside">layer {layer}</span>{shown}</th>'
        yield '<th scope="col" class="all">all layers</th></tr></thead>'
        yield from self._inside(layers)
        yield from self._outside(len(layers))

    def _inside(self, layers: list[int]) -> Iterator[str]:
        if not layers:
            return
        numbers = self.kind_numbers
        yield "<tbody>"
        for kind, whole in self.kinds.items():
            yield f'<tr><th scope="row">{name(kind)}</th>'
            of_kind = f'data-k="{numbers[kind]}"'
            for layer in layers:
                group = self.cells.get(Position(layer, kind))
                yield self._cell(group, f'data-l="{layer}" {of_kind}', f"layer {layer}, {kind}")
            yield f"{self._whole(whole, of_kind, kind)}</tr>"
        yield '</tbody><tbody><tr><th scope="row">all of a layer</th>'
        for layer, group in self.layers.items():
            yield self._cell(group, f'data-l="{layer}"', f"layer {layer}, all of it")
        yield '<td class="all"></td></tr></tbody>'

    def _outside(self, layers: int) -> Iterator[str]:
        """Rows of what lies outside of all layers."""
        yield "<tbody>"
        gap = f'<td colspan="{layers}"></td>' if layers else ""
        numbers = self.kind_numbers
        for place, group in self.cells.items():
            if place.layer is None:
                where = f'data-l="{OUTSIDE}" data-k="{numbers[place.kind]}"'
                whole = self._whole(group, where, place.kind)
                yield f'<tr><th scope="row">{name(place.kind)}</th>{gap}{whole}</tr>'
        yield "</tbody>"

    def _cell(self, group: Group | None, where: str, what: str) -> str:
        """A square; one that stands for nothing is left out."""
        if group is None:
            return '<td><span class="aside">no such tensor</span></td>'
        return f"<td>{self._link(group, where, what)}</a></td>"

    def _whole(self, group: Group, where: str, what: str) -> str:
        """A square with its number."""
        number = format_relative(group.measure.relative) if group.different else "same"
        return f'<td class="all">{self._link(group, where, what)}</a> {number}</td>'

    def _link(self, group: Group, where: str, what: str) -> str:
        """An open link to the rows of a group, named by what is known of it."""
        label = escape("\n".join([printable(what), *_said(group)]))
        return f'<a class="{self.look(group)}" href="#tensors" {where} aria-label="{label}">'

    def legend(self) -> Iterator[str]:
        """What the looks mean, of those that occur."""
        groups = [*self.cells.values(), *self.layers.values(), *self.kinds.values()]
        looks = {self.look(group) for group in groups}
        if looks - {"same", "odd"}:
            ramp = "".join(f'<i class="t{step}"></i>' for step in range(STEPS + 1))
            ends = (self.scale.low, self.scale.middle, self.scale.high)
            marks = "".join(f"<span>{format_relative(each)}</span>" for each in ends)
            yield f'<div class="ramp"><div aria-hidden="true">{ramp}</div><div>{marks}</div></div>'
        if "same" in looks:
            yield '<span><i class="same"></i> the same, bit for bit</span>'
        if "odd" in looks:
            yield '<span><i class="odd"></i> differs, in no way that has a size</span>'


def _said(group: Group) -> Iterable[str]:
    """What a tip and a screen reader say of a group, one line each."""
    share, relative, largest = numbers(group.measure)
    if not group.different:
        return [f"the same: {format_count(group.tensors)} of {format_count(group.tensors)} tensors"]
    return [
        f"relative change: {relative}",
        f"elements changed: {share} of {format_count(group.measure.numel)}",
        f"largest change: {largest}",
        f"tensors that differ: {format_count(group.different)} of {format_count(group.tensors)}",
    ]

"""The table of all tensors: what has no equal partner first, then the most changed."""

import math
from collections.abc import Iterator
from typing import Final

from weightsmith.cli.diff_page.heat_map import OUTSIDE, Map
from weightsmith.cli.diff_page.text import name, text
from weightsmith.cli.diff_text import infos, numbers
from weightsmith.codecs.measure import Measure
from weightsmith.ops.diff_result import Difference, Status, TensorDifference
from weightsmith.units import format_count

COLUMNS: Final = ("tensor", "status", "dtype and shape", "elements", "relative", "largest")
_NUMBERS: Final = COLUMNS[3:]
_FIRST: Final[tuple[Status, ...]] = (
    "added",
    "removed",
    "other shape",
    "other dtype",
    "changed",
    "same",
)
"""The order of statuses in the table and in its filter."""


def heads() -> Iterator[str]:
    """The heads of the columns, each of which sorts by its column."""
    for column in COLUMNS:
        sort = ' aria-sort="ascending"' if column == "status" else ""
        side = ' class="n"' if column in _NUMBERS else ""
        yield f'<th scope="col"{sort}{side}><button type="button">{column}</button></th>'


def filters(found: Difference) -> Iterator[str]:
    """A button for each status that occurs, with how many there are, and one for all of them."""
    counts = found.statuses()
    if len(counts) < 2:
        return
    yield _button("", "all", len(found.tensors), pressed=True)
    for rank, status in enumerate(_FIRST):
        if status in counts:
            yield _button(str(rank), status, counts[status], pressed=False)


def _button(value: str, what: str, count: int, *, pressed: bool) -> str:
    state = str(pressed).lower()
    number = f"<b>{format_count(count)}</b>"
    return f'<button type="button" data-s="{value}" aria-pressed="{state}">{what} {number}</button>'


def rows(found: Difference, shown: Map) -> Iterator[str]:
    """A row for each tensor.

    ``data-l`` and ``data-k`` name its cell in the heat map, and each ``data-v`` the place of a
    cell's value among those of its column.
    """
    order = {each.name: at for at, each in enumerate(found.tensors)}
    kinds = shown.kind_numbers
    for tensor in sorted(found.tensors, key=_order):
        place = tensor.place
        layer = OUTSIDE if place.layer is None else place.layer
        measure = tensor.measure or Measure()
        share, relative, largest = numbers(tensor.measure)
        swatch = ""
        if tensor.size and measure.relative:
            swatch = f'<i class="t{shown.scale.step(measure.relative)}"></i>'
        size = "Infinity" if math.isinf(tensor.size) else tensor.size
        numel = max(info.numel for info in (tensor.a, tensor.b) if info)
        yield (
            f'<tr data-l="{layer}" data-k="{kinds[place.kind]}">'
            f'<th scope="row" data-v="{order[tensor.name]}">{name(tensor.name)}</th>'
            f'<td data-v="{_FIRST.index(tensor.status)}">{_status(tensor)}</td>'
            f'<td class="soft" data-v="{numel}">{text(infos(tensor))}</td>'
            f'<td class="n" data-v="{measure.share}">{share}</td>'
            f'<td class="n" data-v="{size}">{swatch}{relative}</td>'
            f'<td class="n" data-v="{measure.largest}">{largest}</td></tr>'
        )


def _order(tensor: TensorDifference) -> tuple[int, float]:
    return _FIRST.index(tensor.status), -tensor.size


def _status(tensor: TensorDifference) -> str:
    """Marked where a reader should look first."""
    return tensor.status if tensor.status in {"changed", "same"} else f"<em>{tensor.status}</em>"

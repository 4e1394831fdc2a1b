"""What `diff` found, as a person reads it; the page of ``--html`` writes its numbers likewise."""

import sys
from collections.abc import Sequence
from typing import Final

from weightsmith.cli.layout import brief, display_width, heading, one_line_rows, styled, table
from weightsmith.codecs.measure import Measure, ulp_range
from weightsmith.errors import shown
from weightsmith.ops.diff_result import Difference, Group, TensorDifference
from weightsmith.units import format_count, format_percent

NONE: Final = "–"
"""Stands where there is no number."""
_COLUMNS: Final = ("elements", "relative", "largest")
_MOST: Final = 8
"""How many of the most changed tensors are named."""
_NEAR: Final = 6
"""How many distances in units in the last place are told apart."""


def render_diff(found: Difference, *, width: int, everything: bool) -> str:
    """Totals, kinds of module and the most changed tensors; `everything`: layers, all tensors."""
    title = f"{found.a} → {found.b}"
    if display_width(title) > width:
        title = f"{found.a}\n→ {found.b}"
    title = "\n".join(map(heading, title.split("\n")))
    title += styled("  the same", "green") if found.equal else ""
    notes = [("note", brief(note, everything=everything)) for note in found.notes]
    rows = _summary(found) + notes
    parts = [f"{title}\n{table(rows, width=width)}"]
    if not found.equal:
        kinds = [(*_group_numbers(each), kind) for kind, each in found.kinds().items()]
        parts.append(_listed("changed by kind", ("tensors", *_COLUMNS), kinds, width))
        most = [(*numbers(each.measure), each.name) for each in found.most_changed()[:_MOST]]
        parts.append(_listed("most changed", _COLUMNS, most, width))
        parts.append(_unmatched(found, width, everything=everything))
    if everything:
        layers = [(*_group_numbers(each), str(n)) for n, each in found.layers().items()]
        parts.append(_listed("changed by layer", ("tensors", *_COLUMNS), layers, width))
        tensors = [(each.status, *numbers(each.measure), each.name) for each in found.tensors]
        parts.append(_listed("all tensors", ("", *_COLUMNS), tensors, sys.maxsize))
    return "\n\n".join(part for part in parts if part)


def numbers(measure: Measure | None) -> tuple[str, str, str]:
    """Share of changed elements, relative change, largest change."""
    if measure is None or not measure.numel:
        return NONE, NONE, NONE
    largest = f"{measure.largest:.3g}" if measure.sized else NONE
    share = format_share(measure.changed, measure.numel)
    return share, format_relative(measure.relative), largest


def format_share(part: int, whole: int) -> str:
    """Percent; all and nothing are said of all and nothing only: ``"61.20 %"``, ``"<0.01 %"``."""
    if part in {0, whole}:
        return "100 %" if part else "0 %"
    percent = 100 * part / whole
    if percent < 0.01:
        return "<0.01 %"
    return ">99.99 %" if percent > 99.99 else f"{percent:.2f} %"


def format_relative(relative: float | None) -> str:
    """Percent to three digits; a dash for none."""
    return NONE if relative is None else format_percent(relative)


def format_statuses(found: Difference) -> str:
    """``"226 changed, 65 same"``."""
    return ", ".join(
        f"{format_count(count)} {status}" for status, count in found.statuses().items()
    )


def infos(tensor: TensorDifference) -> str:
    """Dtype and shape, of A and of B where they differ."""
    sides = dict.fromkeys(str(info) for info in (tensor.a, tensor.b) if info is not None)
    rows = f", {tensor.new_rows:+} rows" if tensor.new_rows else ""
    return " → ".join(sides) + rows


def _summary(found: Difference) -> list[tuple[str, str]]:
    total = found.total.measure
    share, relative, largest = numbers(total)
    rows = [
        ("tensors", f"{format_count(len(found.tensors))}: {format_statuses(found)}"),
        ("elements", f"{format_count(total.numel)} compared, {share} changed"),
    ]
    if total.change_squares:
        rows.append(("change", f"{relative} of the size of A (L2), {largest} at most"))
    if len(total.ulps) > 1:
        rows.append(("moved by", _steps(total.ulps)))
    return rows


def _steps(counts: Sequence[int]) -> str:
    """How far elements moved, in steps from a float to the next one."""
    whole, far = sum(counts), sum(counts[_NEAR:])
    near = [f"{ulp_range(n)}: {format_share(each, whole)}" for n, each in enumerate(counts[:_NEAR])]
    more = f"{1 << _NEAR >> 1} or more: {format_share(far, whole)}"
    parts = ", ".join([*near, more] if far else near)
    return f"{parts} (steps from a float to the next)"


def _group_numbers(group: Group) -> tuple[str, ...]:
    return f"{group.different}/{group.tensors}", *numbers(group.measure)


def _unmatched(found: Difference, width: int, *, everything: bool) -> str:
    """Tensors that are in one of the two only, or of another dtype or shape."""
    rows = [
        f"{each.status}: {each.name}, {infos(each)}"
        for each in found.tensors
        if each.status not in {"same", "changed"}
    ]
    lines = [(row,) for row in shown(rows, everything=everything)]
    return f"{heading('not alike')}\n{table(lines, width=width, styles=())}" if rows else ""


def _listed(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """Rows of numbers, each with a name at its end, under the names of the columns.

    A row takes one line: a name that would pass `width` is shortened in its middle.
    """
    if not rows:
        return ""
    named = len(rows[0]) - 1
    page = one_line_rows(
        [(*columns, ""), *rows], width=width, shrink=(named,), styles=(), right=range(named)
    )
    names, *lines = page.splitlines()
    return "\n".join([heading(title), styled(names, "dim"), *lines])

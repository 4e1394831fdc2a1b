"""How far elements moved, in units in the last place: a bar and its value for each range."""

from collections.abc import Iterator, Sequence
from typing import Final

from weightsmith.cli.diff_text import format_share
from weightsmith.codecs.measure import ulp_range
from weightsmith.units import format_count

_POWERS_FROM: Final = 10
"""From here on a range is named by the powers of two at its ends."""


def rows(counts: Sequence[int]) -> Iterator[str]:
    """A row for each range of distances; `counts` as `Measure.ulps`."""
    whole, most = sum(counts), max(counts)
    for number, count in enumerate(counts):
        width = f"{100 * count / most:.2f}%" if count else "0"
        bar = f'<svg aria-hidden="true"><rect width="{width}" height="100%" rx="2"/></svg>'
        yield (
            f'<tr><th scope="row">{_range(number)}</th><td class="bar">{bar}</td>'
            f'<td class="n">{format_share(count, whole)}</td>'
            f'<td class="n soft">{format_count(count)}</td></tr>'
        )


def _range(number: int) -> str:
    if number < _POWERS_FROM:
        return ulp_range(number).replace("-", " to ")
    return f"2<sup>{number - 1}</sup> to 2<sup>{number}</sup>"

"""Text with structure, before any stream is known: styles, headings, tables.

Text is always made with its styles; `output` takes them out again where a stream shows no colours.
"""

import re
import textwrap
import unicodedata
from collections.abc import Sequence
from typing import Final

from weightsmith.errors import printable

STYLES: Final = {
    "bold": "\x1b[1m",
    "dim": "\x1b[2m",
    "red": "\x1b[1;31m",
    "green": "\x1b[32m",
    "yellow": "\x1b[33m",
    "cyan": "\x1b[36m",
}
RESET: Final = "\x1b[0m"

_STYLE_CODES: Final = re.compile("|".join(map(re.escape, [*STYLES.values(), RESET])))
_ASCII: Final = str.maketrans(
    {
        "…": "...",
        "→": "->",
        "×": "x",
        "·": "-",
        "–": "-",
        "—": "-",
        "━": "#",
        "╸": "#",
        "‘": "'",
        "’": "'",
    }
)
_GAP: Final = 2


def styled(text: str, style: str) -> str:
    """`text` in one of `STYLES`."""
    return f"{STYLES[style]}{text}{RESET}" if text else text


def plain(text: str) -> str:
    """`text` without its styles."""
    return _STYLE_CODES.sub("", text)


def safe(text: str) -> str:
    """`text` with every control character but line breaks and our own styles escaped."""
    parts = _STYLE_CODES.split(text)
    codes = [*_STYLE_CODES.findall(text), ""]
    escaped = ("\n".join(map(printable, part.split("\n"))) for part in parts)
    return "".join(part + code for part, code in zip(escaped, codes, strict=True))


def encodable(text: str, encoding: str) -> str:
    """`text` with what `encoding` lacks replaced: by an ASCII stand-in, else by an escape."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_ASCII).encode(encoding, "backslashreplace").decode(encoding)
    return text


def heading(text: str) -> str:
    """A line that stands above a table."""
    return styled(text, "bold")


def table(
    rows: Sequence[Sequence[str]],
    *,
    width: int,
    styles: Sequence[str | None] = ("dim",),
    right: Sequence[int] = (),
    indent: int = 2,
) -> str:
    """Aligned columns, indented; cells are plain text, whose control characters are escaped.

    `styles` goes by column. Columns in `right` are aligned right. The last column is wrapped under
    itself where it would pass `width`; words are never broken, so that a path can be copied.
    """
    columns = max(map(len, rows), default=0)
    cells = [[*map(printable, row), *[""] * (columns - len(row))] for row in rows]
    widths = [max(display_width(row[column]) for row in cells) for column in range(columns)]
    lines: list[str] = []
    for row in cells:
        start = indent + sum(widths[:-1]) + _GAP * (columns - 1)
        wrapped = textwrap.wrap(
            row[-1], max(width - start, 24), break_long_words=False, break_on_hyphens=False
        ) or [""]
        line = " " * indent
        for column, cell in enumerate([*row[:-1], wrapped[0]]):
            padding = " " * (widths[column] - display_width(cell))
            style = styles[column] if column < len(styles) else None
            text = styled(cell, style) if style else cell
            line += padding + text if column in right else text + padding
            line += " " * _GAP
        lines.append(line.rstrip())
        style = styles[columns - 1] if columns <= len(styles) else None
        lines += [" " * start + (styled(more, style) if style else more) for more in wrapped[1:]]
    return "\n".join(lines)


def display_width(text: str) -> int:
    """Columns that `text` takes on a terminal; ideographs take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )

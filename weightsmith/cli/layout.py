"""Text with structure, before any stream is known: styles, headings, tables.

Text is always made with its styles; `output` takes them out again where a stream shows no colours.
"""

import re
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import Final

from weightsmith.errors import printable, shown
from weightsmith.units import counted

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
# What shortens a cell takes one column here too, so that the tables stay as wide as they were made.
_ASCII: Final = str.maketrans(
    {
        "…": "~",
        "±": "+-",
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
_WORD: Final = re.compile(r"""(?:[^\s"']|"[^"]*"|'[^']*')+""")
"""A word of a command; in quotes it may have spaces."""
_UNBROKEN: Final = re.compile(r"'weightsmith [^']*'|(?<!\S)weightsmith .*|\S+")
"""A word of a sentence, or a command in it."""
_TOGETHER: Final = re.compile(
    r"\[\d+(?:, \d+)+\]|(?<![\d.])\d[\d.]*(?: \d{3})* (?:%|s|[kMGT]i?B|B)(?!\w)"
)
"""What is read as one word: a shape, a number with its unit."""
_HELD: Final = "\x01"
"""Stands for a space in such a word; whatever is shown has no control characters of its own."""
_LABELS: Final = ("error:", "warning:", "hint:")
_GOES_ON: Final = " \\"
_SHORT: Final = (24, 12, 8)
"""Columns that a shortened cell keeps as long as another can be shortened to them."""


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


def brief(note: str, *, everything: bool) -> str:
    """A note as it is read: of a list at its end, the first few names, or `everything`."""
    said, colon, names = note.rpartition(": ")
    return said + colon + ", ".join(shown(names.split(", "), everything=everything))


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
    lines = _table_lines(rows, width, styles, right, indent)
    return "\n".join(line for row in lines for line in row)


def stacked(
    rows: Sequence[Sequence[str]],
    *,
    at: int,
    width: int,
    styles: Sequence[str | None] = ("dim",),
    right: Sequence[int] = (),
) -> str:
    """A table; where one would pass `width`, the cells from column `at` on go below the others.

    There they begin under the second column, without a style.
    """
    page = table(rows, width=width, styles=styles, right=right)
    if max(map(display_width, plain(page).splitlines()), default=0) <= width:
        return page
    start = 2 * _GAP + max(display_width(printable(row[0])) for row in rows)
    above = _table_lines([row[:at] for row in rows], sys.maxsize, styles, right, _GAP)
    right = [column - at for column in right if column >= at]
    below = _table_lines([row[at:] for row in rows], width, (), right, start)
    return "\n".join(
        line for row in zip(above, below, strict=True) for part in row for line in part
    )


def counted_files(names: Iterable[str]) -> str:
    """``"4 .pt files"``; one whose name has no ending, as ``.metadata``, is an index of others."""
    endings = [suffix for name in names if (suffix := PurePath(name).suffix)]
    return counted(len(endings), f"{' and '.join(sorted(set(endings)))} file".lstrip())


def one_line_rows(
    rows: Sequence[Sequence[str]],
    *,
    width: int,
    shrink: Sequence[int],
    styles: Sequence[str | None] = ("dim",),
    right: Sequence[int] = (),
) -> str:
    """A table of one line a row: where it would pass `width`, cells are shortened in their middle,
    those of the first column in `shrink` first.

    No column gets so short that it says nothing, before all of them have become short.
    """
    cells = [[*map(printable, row)] for row in rows]
    columns = max(map(len, cells), default=0)
    widths = [max(display_width(row[column]) for row in cells) for column in range(columns)]
    excess = _GAP * columns + sum(widths) - width
    for least in _SHORT:
        for column in shrink:
            taken = min(max(excess, 0), max(widths[column] - least, 0))
            widths[column] -= taken
            excess -= taken
    for row in cells:
        for column in shrink:
            row[column] = shortened(row[column], widths[column])
    return table(cells, width=sys.maxsize, styles=styles, right=right)


def shortened(text: str, width: int) -> str:
    """``huggyllama/llama-7b`` -> ``huggyll…ama-7b``: both ends tell more than one does."""
    if display_width(text) <= width:
        return text
    head = text[: -(-(width - 1) // 2)]
    tail = text[len(text) - (width - 1) // 2 :]
    while display_width(head) + 1 + display_width(tail) > width:
        head, tail = (head[:-1], tail) if len(head) >= len(tail) else (head, tail[1:])
    return f"{head}…{tail}"


def filled(text: str, width: int) -> str:
    """Sentences in lines of `width`, broken between words, but not within a command.

    All lines but the first are indented: to stand behind ``hint:``, else by two columns.
    """
    lines: list[str] = []
    for sentence in text.split("\n"):
        words = _UNBROKEN.findall(_held(sentence))
        indent = len(sentence) - len(sentence.lstrip())
        first = plain(words[0]) if words else ""
        hang = " " * (len(first) + 1 if first in _LABELS else indent + _GAP)
        line = " " * indent
        for word in words:
            longer = line + word if not line.strip() else f"{line} {word}"
            begun = line.strip() and plain(line) not in _LABELS
            if begun and display_width(plain(longer)) > width:
                lines.append(line)
                longer = hang + word
            line = longer
        lines.append(line)
    return "\n".join(lines).replace(_HELD, " ")


def _held(text: str) -> str:
    """`text` with spaces that no line breaks at in what is read as one word."""
    return _TOGETHER.sub(lambda found: found[0].replace(" ", _HELD), text)


def continued(command: str, width: int) -> list[str]:
    """A command in lines of `width` that a shell joins, each but the last with a backslash.

    An option stays beside its value, and what is quoted is never broken.
    """
    if len(command) <= width:
        return [command]
    words = [" ".join(part) for part in _parts(_WORD.findall(command))]
    lines = words[:1]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) + len(_GOES_ON) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(" " * 2 * _GAP + word)
    return [*(line + _GOES_ON for line in lines[:-1]), *lines[-1:]]


def _parts(words: Sequence[str]) -> Iterator[list[str]]:
    """The words of a command, each option and each ``>`` with the word behind it."""
    part: list[str] = []
    for word in words:
        if part and (word[0] in "-|>" or len(part) > 1 or part[0][0] not in "-|>"):
            yield part
            part = []
        part.append(word)
    if part:
        yield part


def _table_lines(
    rows: Sequence[Sequence[str]],
    width: int,
    styles: Sequence[str | None],
    right: Sequence[int],
    indent: int,
) -> list[list[str]]:
    """The lines of each row."""
    columns = max(map(len, rows), default=0)
    cells = [[*map(printable, row), *[""] * (columns - len(row))] for row in rows]
    widths = [max(display_width(row[column]) for row in cells) for column in range(columns)]
    table_lines: list[list[str]] = []
    for row in cells:
        start = indent + sum(widths[:-1]) + _GAP * (columns - 1)
        wrapped = textwrap.wrap(
            _held(row[-1]), max(width - start, 24), break_long_words=False, break_on_hyphens=False
        ) or [""]
        wrapped = [line.replace(_HELD, " ") for line in wrapped]
        line = " " * indent
        for column, cell in enumerate([*row[:-1], wrapped[0]]):
            padding = " " * (widths[column] - display_width(cell))
            style = styles[column] if column < len(styles) else None
            text = styled(cell, style) if style else cell
            line += padding + text if column in right else text + padding
            line += " " * _GAP
        style = styles[columns - 1] if columns <= len(styles) else None
        rest = [" " * start + (styled(more, style) if style else more) for more in wrapped[1:]]
        table_lines.append([line.rstrip(), *rest])
    return table_lines


def display_width(text: str) -> int:
    """Columns that `text` takes on a terminal; ideographs take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )

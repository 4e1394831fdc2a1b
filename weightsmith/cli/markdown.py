"""Markdown as a terminal shows it: headings, paragraphs, lists, tables and code of a page of docs/.

Only what those pages use is understood; the rest stays as it was typed, which Markdown allows.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Final

from weightsmith.cli.layout import display_width, heading, plain, styled, table

_FENCE: Final = "```"
_HEADING: Final = re.compile(r"(#+) +(.*)")
_ITEM: Final = re.compile(r"( *)([-*]|\d+\.) +(.*)")
_COMMENT: Final = re.compile(r"<!--.*?-->\n?", re.DOTALL)
_LINK: Final = re.compile(r"!?\[([^\]]*)\]\(([^)\s]+)\)")
_SPAN: Final = re.compile(r"`([^`]+)`|\*\*(.+?)\*\*|(?<![\w*])\*([^*\s][^*]*)\*(?!\w)")
_CELL_END: Final = re.compile(r"(?<!\\)\|")


def render(text: str, width: int) -> str:
    """A page, its lines no longer than `width` but for lines of code, which are not broken."""
    lines = _COMMENT.sub("", text).splitlines()
    return "\n\n".join(_blocks(lines, width))


def title(text: str) -> str:
    """What the first heading of a page says."""
    first = next((match for line in text.splitlines() if (match := _HEADING.match(line))), None)
    return plain(_inline(first[2])) if first else ""


def _blocks(lines: Sequence[str], width: int) -> Iterator[str]:
    at = 0
    while at < len(lines):
        line = lines[at]
        if not line.strip():
            at += 1
        elif line.startswith(_FENCE):
            code = [*takewhile(lambda each: not each.startswith(_FENCE), lines[at + 1 :])]
            at += len(code) + 2
            # A block that speaks to the site's generator, {toctree} and the like, is not shown.
            if not line.startswith(_FENCE + "{"):
                yield _indented(code, width)
        elif found := _HEADING.match(line):
            at += 1
            yield "\n".join(map(heading, plain(_wrapped(found[2], width)).splitlines()))
        elif line.startswith("|"):
            rows = [*takewhile(lambda each: each.startswith("|"), lines[at:])]
            at += len(rows)
            yield _table(rows, width)
        elif line.startswith("    "):
            code = [*takewhile(lambda each: each.startswith("    ") or not each, lines[at:])]
            at += len(code)
            yield _indented([each[4:] for each in code], width).rstrip()
        elif _ITEM.match(line):
            items = [*takewhile(lambda each: _ITEM.match(each) or each.startswith(" "), lines[at:])]
            at += len(items)
            yield "\n".join(_items(items, width))
        else:
            prose = [*takewhile(_is_prose, lines[at + 1 :])]
            at += 1 + len(prose)
            yield _wrapped(" ".join([line, *prose]), width)


def _indented(code: Sequence[str], width: int) -> str:
    """Code four columns in, or fewer where its longest line has room for fewer."""
    room = width - max(map(display_width, code), default=0)
    indent = " " * min(4, max(0, room))
    return "\n".join(f"{indent}{each}".rstrip() for each in code)


def _is_prose(line: str) -> bool:
    starts = (_FENCE, "|", "#")
    return bool(line.strip()) and not line.startswith(starts) and not _ITEM.match(line)


def _items(lines: Sequence[str], width: int) -> Iterator[str]:
    """A list, each item wrapped behind its mark."""
    items: list[tuple[str, list[str]]] = []
    for line in lines:
        if found := _ITEM.match(line):
            items.append((f"{found[1]}{found[2]} ", [found[3]]))
        else:
            items[-1][1].append(line.strip())
    for mark, texts in items:
        yield _wrapped(" ".join(texts), width, mark)


def _table(lines: Sequence[str], width: int) -> str:
    """A table in columns; where these are too wide, each row by itself, a line for a cell."""
    head, rule, *rows = [
        [plain(_inline(cell.strip().replace(r"\|", "|"))) for cell in _CELL_END.split(line)[1:-1]]
        for line in lines
    ]
    right = [column for column, cell in enumerate(rule) if cell.endswith(":")]
    columns = table([head, *rows], width=width, styles=("bold",), right=right)
    if max(map(display_width, plain(columns).splitlines())) <= width:
        return columns
    return "\n".join(line for row in rows for line in _row(head, row, width))


def _row(head: Sequence[str], row: Sequence[str], width: int) -> Iterator[str]:
    yield _wrapped(styled(row[0], "bold"), width, "  ")
    for name, cell in zip(head[1:], row[1:], strict=False):
        if cell:
            yield _wrapped(f"{name}: {cell}" if name else cell, width, "      ")


def _inline(text: str) -> str:
    """A text with its code and what is stressed in styles, and links as their words.

    Of a link to another page the words say enough; an address outside is told.
    """
    text = _LINK.sub(
        lambda found: f"{found[1]} ({found[2]})" if "://" in found[2] else found[1], text
    )
    return _SPAN.sub(_styled_words, text)


def _styled_words(found: re.Match[str]) -> str:
    """Each word in the span's style, so that a line can be broken between them."""
    code, strong, stressed = found.groups()
    style = "cyan" if code else "bold"
    return " ".join(styled(word, style) for word in (code or _inline(strong or stressed)).split())


def _wrapped(text: str, width: int, mark: str = "") -> str:
    """Words in lines of `width`; the first line begins with `mark`, the others below its text."""
    lines, line = [], mark
    for word in _inline(text).split():
        longer = f"{line}{'' if line.endswith(' ') or not line else ' '}{word}"
        if line.strip() and line != mark and display_width(plain(longer)) > width:
            lines.append(line)
            longer = " " * len(mark) + word
        line = longer
    return "\n".join([*lines, line])

"""Text of any origin on the page: escaped, and never longer than its place."""

from html import escape
from typing import Final

from weightsmith.errors import printable

_TAIL: Final = 12
"""How many characters at the end of a long name are always seen."""
_HEAD: Final = 8
"""How many there have to be before them for a name to be long."""


def text(value: object) -> str:
    """Fit for an element's content or a quoted attribute."""
    return escape(printable(value))


def name(value: object) -> str:
    """A name on one line, which gives up its middle where there is no room for all of it.

    The whole of it is there to be read aloud, searched and copied, and in a tip.
    """
    whole = printable(value)
    head, tail = whole[:-_TAIL], whole[-_TAIL:]
    if len(head) < _HEAD:
        return f'<bdi class="name">{escape(whole)}</bdi>'
    parts = f"<span>{escape(head)}</span><span>{escape(tail)}</span>"
    return f'<bdi class="name" title="{escape(whole)}">{parts}</bdi>'

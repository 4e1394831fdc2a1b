"""Split the name of a chain, ``A+D1+D2``, into those of its links."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from weightsmith.catalogue.load import alias
from weightsmith.hub.resolve import is_hub_source
from weightsmith.objects.address import is_object_address

PLUS: Final = "+"
"""Separates the links of a chain."""
ON: Final = " on "
"""Separates the links of an origin, in which the last delta comes first."""
_LONGEST_PATH: Final = 4096


def reads_as_chain(path: str) -> bool:
    """Whether the name of an existing path would otherwise be read as a chain."""
    if PLUS not in path:
        return False  # so that the catalogue is not read for most paths
    return len(_links(path, lambda piece: piece != path and os.path.lexists(piece))) > 1


def split(text: str) -> list[str]:
    """The links of ``A+D1+D2``; a name that holds a plus sign itself stays whole.

    Each link is the longest piece, from the end of the last one, that exists as a file or folder,
    or else the shortest that can be an alias of the catalogue or a hub id. A name that is not a
    chain gives one link.
    """
    return _links(text, os.path.lexists)


def _links(text: str, is_there: Callable[[str], bool]) -> list[str]:
    words = text.split(PLUS)
    links: list[str] = []
    start = 0
    while start < len(words):
        pieces = list(_pieces(words[start:]))
        there = next((piece for piece in reversed(pieces) if is_there(piece)), None)
        piece = there or next(filter(_could_be_far, pieces), None)
        if not piece:
            return [text]
        links.append(piece)
        start += piece.count(PLUS) + 1
    return links


def spelled(origin: str) -> str:
    """The SOURCE of an origin: ``D2 on D1 on A``, as deltas record their base, -> ``A+D1+D2``."""
    return PLUS.join(reversed(origin.split(ON)))


def _pieces(words: Sequence[str]) -> Iterator[str]:
    """The first word, the first two, ..., as far as a path can be long."""
    piece = words[0]
    for word in words[1:]:
        yield piece
        piece = f"{piece}{PLUS}{word}"
        if len(piece) > _LONGEST_PATH:
            return
    yield piece


def _could_be_far(text: str) -> bool:
    return (
        alias(text.partition("@")[0]) is not None or is_hub_source(text) or is_object_address(text)
    )

"""The pages of docs/, which come with the package and are read by ``weightsmith help``."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from weightsmith.cli.layout import heading, table
from weightsmith.cli.markdown import render, title

ROOMS: Final = {
    "tutorials": "Tutorials",
    "how-to": "How to",
    "reference": "Reference",
    "explanation": "Explanation",
    "decisions": "Decisions",
}
"""Folders of pages, by what a reader comes for, and what they are called."""


def folder() -> Traversable:
    """Where the rooms are: in the package that was built, else in the checkout it is run from."""
    built = files("weightsmith") / "pages"
    return built if built.is_dir() else Path(__file__).parents[2] / "docs"


def pages() -> dict[str, Traversable]:
    """Every page by its address, ``how-to/convert``, in the order of the rooms."""
    docs = folder()
    return {
        f"{room}/{page.name.removesuffix('.md')}": page
        for room in ROOMS
        if (docs / room).is_dir()
        for page in sorted((docs / room).iterdir(), key=lambda page: page.name)
        if page.name.endswith(".md")
    }


def address_of(topic: str) -> str | None:
    """The address of the page that `topic` names, with its room or without it."""
    names = pages()
    if topic in names:
        return topic
    return next((name for name in names if name.partition("/")[2] == topic), None)


def page(address: str, width: int) -> str:
    """One of `pages`, for a terminal of `width` columns."""
    return render(pages()[address].read_text(encoding="utf-8"), width)


def contents(width: int) -> str:
    """``weightsmith help pages``: the address and the title of every page, room by room."""
    parts = []
    for room, name in ROOMS.items():
        rows = [
            (address, title(page.read_text(encoding="utf-8")))
            for address, page in pages().items()
            if address.startswith(f"{room}/")
        ]
        if rows:
            parts.append(f"{heading(name)}\n{table(rows, width=width, styles=('bold',))}")
    return "\n\n".join(parts)

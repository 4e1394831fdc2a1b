"""How Sphinx makes the site out of these pages: ``make docs``.

The pages are plain Markdown that reads as well on a forge; only `index.md` speaks to Sphinx.
"""

import re
from typing import TYPE_CHECKING, Final

from weightsmith.version import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "weightsmith"
author = "The weightsmith contributors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["notebooks", "pictures", "man", "README.*.md"]
smartquotes = False  # messages are searched for as they are typed
myst_heading_anchors = 4  # headings have the addresses that a forge gives them
nitpicky = True  # a reference that leads nowhere is a warning, and `make docs` takes none
nitpick_ignore_regex = [("py:.*", ".*")]  # signatures name types of the inside and of Python itself
default_role = "code"  # what docstrings put between backticks
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 80
suppress_warnings = ["misc.highlighting_failure"]  # excerpts of JSON with an ellipsis in them

html_theme = "furo"  # asks no foreign host: its fonts are the reader's, its scripts are beside it
html_title = f"weightsmith {version}"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_permalinks_icon = "#"
html_theme_options: dict[str, list[str]] = {"top_of_page_buttons": []}

_LABEL: Final = re.compile(r"^(Shapes|Dtypes|Units|Memory|Raises|Source): ")


def setup(app: "Sphinx") -> None:
    """Show docstrings as they are meant to be read."""
    app.connect("autodoc-process-docstring", apart)


def apart(
    _app: object, _what: str, _name: str, _obj: object, _opt: object, lines: list[str]
) -> None:
    """Give what a docstring says of memory, errors and the like a paragraph each."""
    shown: list[str] = []
    for line in lines:
        if _LABEL.match(line):
            shown.append("")
        shown.append(_LABEL.sub(r"**\1**: ", line))
    lines[:] = shown

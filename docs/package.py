"""What setuptools builds besides the package's own modules (`pyproject.toml` names these classes).

The pages go into the package, where ``weightsmith help`` finds them, and the source distribution
holds all that ``make demo`` and ``make test`` need.
"""

import re
from pathlib import Path
from typing import Any, Final

from setuptools.command.build_py import build_py
from setuptools.command.egg_info import egg_info
from setuptools.command.sdist import sdist

ROOMS: Final = ("tutorials", "how-to", "reference", "explanation", "decisions")
TREES: Final = ("weightsmith", "docs", "tests", ".ci")
FILES: Final = ("Makefile", "CHANGELOG.md", "CITATION.cff", ".gitignore")
LEFT: Final = {"__pycache__", ".DS_Store"}
"""Names of what runs leave behind."""


class BuildWithPages(build_py):
    """Modules and data of the package, and the pages of docs/ as ``weightsmith/pages``."""

    def run(self) -> None:
        """Build as setuptools does, and pages unless they can be read where they are (editable)."""
        super().run()
        if not self.editable_mode:
            for page, built in self._pages().items():
                self.mkpath(str(Path(built).parent))
                self.copy_file(page, built)

    def get_output_mapping(self) -> dict[str, str]:
        """Built file -> the file it is made of."""
        pages = {built: page for page, built in self._pages().items()}
        return {**super().get_output_mapping(), **pages}

    def _pages(self) -> dict[str, str]:
        to = Path(self.build_lib, "weightsmith", "pages")
        pages = (page for room in ROOMS for page in sorted(Path("docs", room).glob("*.md")))
        return {str(page): str(to / page.relative_to("docs")) for page in pages}


class AbsoluteLinks(egg_info):
    """The package's metadata, with links in its description that lead somewhere on an index."""

    def run(self) -> None:
        """Write them as setuptools does."""
        metadata: Any = self.distribution.metadata
        home = metadata.project_urls["Homepage"]
        metadata.long_description = absolute(metadata.long_description or "", home)
        super().run()


def absolute(text: str, home: str) -> str:
    """Markdown with links into the repository as addresses, of pages and of pictures."""
    page = r"(?<!!)\[([^\]]*)\]\((?![\w+]+:|#)([^)]+)\)"
    text = re.sub(r"!\[([^\]]*)\]\((?!\w+:)([^)]+)\)", rf"![\1]({home}/raw/main/\2)", text)
    return re.sub(page, rf"[\1]({home}/blob/main/\2)", text)


class WholeSource(sdist):
    """A source distribution with documentation, tests and their vectors."""

    def make_distribution(self) -> None:
        """Take what setuptools lists, and these trees."""
        found = (path for tree in TREES for path in sorted(Path(tree).rglob("*")))
        self.filelist.extend(
            str(path)
            for path in (*map(Path, FILES), *found)
            if path.is_file() and LEFT.isdisjoint(path.parts) and path.suffix not in {".pyc", ".so"}
        )
        self.filelist.sort()
        self.filelist.remove_duplicates()
        super().make_distribution()

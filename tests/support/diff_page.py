"""The page of ``weightsmith diff --html``, written for two small models and taken apart."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from torch import Tensor

from tests.support.command_line import Weightsmith
from tests.support.folders import write_model

VOID = {"meta", "link", "col", "input", "rect"}


@dataclass
class Element:
    """An element and the text in it, that of the elements in it included."""

    tag: str
    attributes: Mapping[str, str]
    text: str = ""

    def __getitem__(self, name: str) -> str:
        return self.attributes.get(name, "")


@dataclass
class Page(HTMLParser):
    """A page taken apart; every element must be closed, in order."""

    elements: list[Element] = field(default_factory=list)
    open: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data

    def all(self, tag: str, **attributes: str) -> list[Element]:
        return [
            each
            for each in self.elements
            if each.tag == tag and attributes.items() <= dict(each.attributes).items()
        ]

    def cells(self) -> list[Element]:
        """The links of the heat map."""
        return self.all("a", href="#tensors")

    def cell(self, name: str) -> Element:
        (found,) = (each for each in self.cells() if each["aria-label"].split("\n")[0] == name)
        return found

    def rows(self) -> list[Element]:
        """Those of the table of tensors."""
        return [each for each in self.all("tr") if "data-k" in each.attributes]

    def names(self) -> list[str]:
        """Tensors in the order of their rows."""
        return [each.text for each in self.all("th", scope="row") if each["data-v"]]

    def provenance(self) -> dict[str, str]:
        at = [each["class"] for each in self.elements].index("provenance")
        listed = [each.text for each in self.elements[at + 1 :] if each.tag in {"dt", "dd"}]
        return dict(zip(listed[::2], listed[1::2], strict=True))


@dataclass
class Compared:
    """Writes two models, compares them, and reads the page."""

    weightsmith: Weightsmith
    folder: Path

    def __call__(self, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Page:
        sides = [str(write_model(self.folder / side, each)) for side, each in (("a", a), ("b", b))]
        said = self.weightsmith("diff", *sides, "--html", str(self.path))
        assert said.code in {0, 1}
        assert said.err.endswith(f"written: {self.path}\n")
        return self.page()

    @property
    def path(self) -> Path:
        return self.folder / "x.html"

    def page(self) -> Page:
        page = Page()
        page.feed(self.path.read_text(encoding="utf-8"))
        page.close()
        assert not page.open
        return page


def step(element: Element) -> int:
    (found,) = re.findall(r"\bt(\d+)\b", element["class"])
    return int(found)

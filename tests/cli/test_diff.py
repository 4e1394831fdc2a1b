"""``weightsmith diff`` as a person, a script and a browser meet it."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from tests.support.command_line import Weightsmith
from tests.support.diff_models import base, tuned
from tests.support.folders import write_model
from weightsmith import fs
from weightsmith.cli.diff_text import format_relative, format_share

VOID = {"meta", "link", "col", "input"}
HOSTILE = "<script>alert('$map &amp; \"')</script>\u202e\x1b[2J"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return str(write_model(folder / "a", base())), str(write_model(folder / "b", tuned()))


@dataclass
class Page(HTMLParser):
    """A page taken apart; every element must be closed, in order."""

    open: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1], data.strip()))

    def of(self, name: str) -> list[str]:
        return [value for each, value in self.attributes if each == name]


def parsed(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert not page.open
    return page


# --- answers --------------------------------------------------------------------------------------


def test_equal_models_end_with_0_and_others_with_1(
    weightsmith: Weightsmith, models: tuple[str, str]
) -> None:
    same = weightsmith("diff", models[0], models[0])
    assert same.code == 0
    assert f"→ {models[0]}  the same\n  tensors   35: 35 same\n" in same.out
    assert "changed by kind" not in same.out
    assert weightsmith("diff", *models).code == 1
    assert weightsmith("diff", models[0], "./nowhere").code == 3
    assert weightsmith("diff", models[0]).code == 2


def test_a_person_reads_totals_kinds_and_the_most_changed(
    weightsmith: Weightsmith, models: tuple[str, str]
) -> None:
    said = weightsmith("diff", *models)
    head, kinds, most = said.out.split("\n\n")
    assert "tensors   35: 13 same, 22 changed" in head
    assert "3 buffers that no loader reads are left out" in head
    assert kinds.startswith("changed by kind\n  tensors  elements  relative  largest\n")
    assert "      2/3   16.67 %         –        –  byte\n" in kinds
    assert most.startswith("most changed\n")
    assert len(most.splitlines()) == 10
    assert "model.layers.0" not in said.out
    assert "all tensors" not in said.out


def test_verbose_lists_layers_and_every_tensor(
    weightsmith: Weightsmith, models: tuple[str, str]
) -> None:
    out = weightsmith("diff", *models, "-v").out
    listed = out.split("all tensors\n")[1].splitlines()[1:]
    assert len(listed) == 35
    assert "changed by layer" in out
    layers = out.split("changed by layer\n")[1].split("\n\n")[0].splitlines()[1:]
    assert [line.split()[0] for line in layers] == ["0/11", "11/11", "11/11"]


def test_tensors_that_have_no_partner_are_named(weightsmith: Weightsmith, tmp_path: Path) -> None:
    sides = {"grown": torch.ones(4, 2), "gone": torch.ones(1)}, {"grown": torch.ones(5, 2)}
    a, b = (write_model(tmp_path / str(n), side) for n, side in enumerate(sides))
    out = weightsmith("diff", str(a), str(b)).out
    assert "removed: gone, F32 [1]" in out
    assert "other shape: grown, F32 [4, 2] → F32 [5, 2], +1 rows" in out


def test_the_document_is_the_answer_and_nothing_else_is_said(
    weightsmith: Weightsmith, models: tuple[str, str]
) -> None:
    said = weightsmith("diff", *models, "--json")
    document = json.loads(said.out)
    assert (said.code, said.err) == (1, "")
    assert document["schema"] == "weightsmith.diff/1"
    assert (document["a"], document["b"], document["equal"]) == (*models, False)
    assert len(document["tensors"]) == 35


def test_quiet_says_one_word(weightsmith: Weightsmith, models: tuple[str, str]) -> None:
    assert weightsmith("diff", *models, "-q").out == "different\n"
    assert weightsmith("diff", models[1], models[1], "-q").out == "same\n"
    assert weightsmith("diff", *models, "-qq").out == ""


@pytest.mark.slow
def test_a_diff_needs_no_torch(models: tuple[str, str]) -> None:
    code = (
        "import sys; from weightsmith.cli.main import run;"
        f"run(['diff', *{models!r}, '-q']); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert {"different", "numpy"} <= modules
    assert not modules & {"torch", "transformers", "safetensors", "huggingface_hub"}


@pytest.mark.parametrize(
    "part,whole,text",
    [
        *((0, 7, "0 %"), (0, 0, "0 %"), (7, 7, "100 %"), (612, 1000, "61.20 %")),
        *((1, 10**9, "<0.01 %"), (10**9 - 1, 10**9, ">99.99 %")),
    ],
)
def test_all_and_nothing_are_said_of_all_and_nothing_only(part: int, whole: int, text: str) -> None:
    assert format_share(part, whole) == text


@pytest.mark.parametrize(
    "relative,text",
    [
        *((None, "–"), (0.0, "0 %"), (0.0123456, "1.23 %"), (0.09996, "10.0 %"), (1.0, "100 %")),
        *((0.00999949, "1.00 %"), (12.345, "1234 %"), (1.234e-5, "0.00123 %")),
        *((4.12e-9, "4.12e-07 %"), (3e9, "3.00e+11 %")),
    ],
)
def test_relative_changes_have_three_digits(relative: float | None, text: str) -> None:
    assert format_relative(relative) == text


# --- the page -------------------------------------------------------------------------------------


def test_the_page_shows_every_layer_kind_and_tensor(
    weightsmith: Weightsmith, models: tuple[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    said = weightsmith("diff", *models, "--html", str(path))
    assert said.code == 1
    assert said.err.endswith(f"written: {path}\n")
    page = parsed(path)
    cells = [tip.split("\n")[0] for tip in page.of("data-tip")]
    assert {f"layer {n}, {kind}" for n in range(3) for kind in ("half", "byte")} <= set(cells)
    assert {"layer 0", "layer 2", "half", "norm", "embed_tokens"} <= set(cells)
    # Layers 1 and 2 of five float dtypes, both as a whole, five kinds; then tensors and a legend.
    looks = page.of("class")
    assert looks.count("c") == 10 + 2 + 5 + 10 + 41
    assert looks.count("odd") == 2 * 6 + 6 + 1
    assert {text for tag, text in page.texts if tag == "td"} >= {
        n for n in base() if "rot" not in n
    }


def test_colours_go_from_the_least_to_the_most_changed(
    weightsmith: Weightsmith, tmp_path: Path
) -> None:
    a = {f"layers.{n}.w": torch.ones(4) for n in range(3)}
    b = {f"layers.{n}.w": torch.ones(4) + 0.1**n for n in range(3)}
    folders = [str(write_model(tmp_path / side, each)) for side, each in (("a", a), ("b", b))]
    weightsmith("diff", *folders, "--html", str(tmp_path / "x.html"))
    cells = parsed(tmp_path / "x.html").of("style")[:3]
    assert cells == ["--t:1.000", "--t:0.500", "--t:0.000"]


def test_the_page_stands_alone(
    weightsmith: Weightsmith, models: tuple[str, str], tmp_path: Path
) -> None:
    weightsmith("diff", *models, "--html", str(tmp_path / "x.html"))
    text = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "http://" not in text
    assert "https://" not in text
    assert "@import" not in text
    assert "url(" not in text
    page = parsed(tmp_path / "x.html")
    assert page.of("src") == []
    assert page.of("href") == ["data:,"]
    assert "default-src 'none'" in " ".join(page.of("content"))


def test_a_hostile_name_stays_text(weightsmith: Weightsmith, tmp_path: Path) -> None:
    name = f"layers.0.{HOSTILE}.weight"
    folders = []
    for n in range(2):
        folder = write_model(tmp_path / f"<u>{n}", {name: torch.full((2,), n + 1.0)})
        folders.append(str(folder))
    said = weightsmith("diff", *folders, "--html", str(tmp_path / "x.html"), "-v")
    assert said.code == 1
    assert "\x1b" not in said.out
    page = parsed(tmp_path / "x.html")
    assert page.tags.count("script") == 1
    assert "u" not in page.tags
    shown = HOSTILE.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert f"layers.0.{shown}.weight" in {text for _, text in page.texts}
    assert any(tip.startswith(f"layer 0, {shown}\n") for tip in page.of("data-tip"))


def test_a_page_is_written_anew_over_an_older_one(
    weightsmith: Weightsmith, models: tuple[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "x.html"
    path.write_text("old")
    weightsmith("diff", *models, "--html", str(path))
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [each.name for each in tmp_path.iterdir()] == ["x.html"]


def test_no_page_is_written_over_weights_or_where_none_can_be(
    weightsmith: Weightsmith, models: tuple[str, str], tmp_path: Path
) -> None:
    weights = Path(models[0]) / "model.safetensors"
    content = weights.read_bytes()
    said = weightsmith("diff", *models, "--html", str(weights))
    assert said.code == 2
    assert "give it a name that ends in .html" in said.err
    assert weights.read_bytes() == content
    (tmp_path / "folder.html").mkdir()
    for place in ("folder.html", "missing/x.html"):
        said = weightsmith("diff", *models, "--html", str(tmp_path / place))
        assert said.code == 2
        assert "cannot write" in said.err


def test_a_page_that_cannot_be_written_is_no_defect(
    weightsmith: Weightsmith,
    models: tuple[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(fs, "rename", refused)
    said = weightsmith("diff", *models, "--html", str(tmp_path / "x.html"))
    assert (said.code, said.out) == (9, "")
    assert "target-unwritable" in said.err


def test_equal_models_make_a_page_without_colours(
    weightsmith: Weightsmith, models: tuple[str, str], tmp_path: Path
) -> None:
    weightsmith("diff", models[0], models[0], "--html", str(tmp_path / "x.html"))
    assert not {"c", "odd"} & set(parsed(tmp_path / "x.html").of("class"))

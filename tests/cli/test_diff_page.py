"""The page of ``weightsmith diff --html``, taken apart."""

import base64
import hashlib
import re
from pathlib import Path

import pytest
import torch

from tests.support.command_line import Weightsmith
from tests.support.diff_models import base, tuned
from tests.support.diff_page import Compared, step
from tests.support.folders import write_model
from weightsmith import fs
from weightsmith.cli.diff_page.colours import STEPS, colour
from weightsmith.version import __version__

HOSTILE = "<script>alert('$map &amp; \"')</script>\u202e\x1b[2J"
ALPHABET = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
def compared(weightsmith: Weightsmith, tmp_path: Path) -> Compared:
    return Compared(weightsmith, tmp_path)


# --- the heat map ---------------------------------------------------------------------------------


def test_every_layer_kind_and_tensor_is_shown_and_named(compared: Compared) -> None:
    page = compared(base(), tuned())
    cells = [cell["aria-label"].split("\n")[0] for cell in page.cells()]
    assert {f"layer {n}, {kind}" for n in range(3) for kind in ("half", "byte")} <= set(cells)
    assert {"layer 0, all of it", "layer 2, all of it", "half", "norm", "embed_tokens"} <= {*cells}
    looks = [cell["class"] for cell in page.cells()]
    # Layers 1 and 2 of six dtypes that are no floats, and each of these dtypes as a whole.
    assert looks.count("odd") == 2 * 6 + 6
    assert sum(look.startswith("t") for look in looks) == 10 + 2 + 5
    assert set(page.names()) == {name for name in base() if "rot" not in name}


def test_a_cell_says_in_words_what_its_colour_says(compared: Compared) -> None:
    page = compared({"layers.0.w": torch.ones(4)}, {"layers.0.w": torch.full((4,), 1.5)})
    assert page.cell("layer 0, w")["aria-label"].split("\n")[1:] == [
        "relative change: 50.0 %",
        "elements changed: 100 % of 4",
        "largest change: 0.5",
        "tensors that differ: 1 of 1",
    ]


def test_tables_have_captions_and_their_heads_a_scope(compared: Compared) -> None:
    page = compared(base(), tuned())
    assert len(page.all("caption")) == len(page.all("table")) == 3
    assert {each["scope"] for each in page.all("th")} == {"col", "row"}


def test_colours_go_from_the_least_to_the_most_changed(compared: Compared) -> None:
    a = {f"layers.{n}.w": torch.ones(4) for n in range(3)}
    page = compared(a, {f"layers.{n}.w": torch.ones(4) + 0.1**n for n in range(3)})
    assert [step(page.cell(f"layer {n}, w")) for n in range(3)] == [STEPS, STEPS // 2, 0]


def test_wholes_are_painted_on_the_scale_of_their_parts(compared: Compared) -> None:
    # A whole may have changed less than each of its parts that changed: most of it is the same.
    a = {f"layers.{n}.{kind}": torch.ones(64) for n in range(2) for kind in ("p", "q", "r", "s")}
    b = a | {"layers.0.p": torch.full((64,), 1.2), "layers.1.p": torch.full((64,), 1.8)}
    page = compared(a, b)
    names = ("layer 0, all of it", "layer 0, p", "layer 1, all of it", "layer 1, p")
    steps = [step(page.cell(name)) for name in names]  # 10 %, 20 %, 40 %, 80 %
    assert 0 == steps[0] < steps[1] < steps[2] < steps[3] == STEPS


def test_a_cell_leads_to_its_rows(compared: Compared) -> None:
    a = {f"layers.{n}.mlp.experts.{e}.w": torch.ones(2) for n in range(2) for e in range(3)}
    page = compared(a | {"norm": torch.ones(2)}, {name: each * 2 for name, each in a.items()})
    named = dict(zip(page.names(), page.rows(), strict=True))
    cell = page.cell("layer 1, mlp.experts.*.w")
    assert [
        name
        for name, row in named.items()
        if (row["data-l"], row["data-k"]) == (cell["data-l"], cell["data-k"])
    ] == [f"layers.1.mlp.experts.{e}.w" for e in range(3)]
    assert "data-l" not in page.cell("mlp.experts.*.w").attributes
    assert "data-k" not in page.cell("layer 1, all of it").attributes
    assert page.cell("norm")["data-l"] == named["norm"]["data-l"] == ""


@pytest.mark.parametrize("dark", [False, True])
def test_more_change_stands_out_more(dark: bool) -> None:
    lights = [luminance(colour(at, dark=dark)) for at in range(STEPS + 1)]
    assert lights == sorted(lights, reverse=not dark)


@pytest.mark.parametrize("block", [0, 1])
def test_text_has_the_contrast_that_wcag_asks_for(compared: Compared, block: int) -> None:
    style = compared(base(), tuned()).all("style")[0].text
    pattern = r"--([a-z-]+): (#[0-9a-f]{3,6});"
    colours = dict(re.findall(pattern, re.findall(r":root \{([^}]*)\}", style)[block]))
    for front, back in (
        *(("ink", "paper"), ("soft", "paper"), ("soft", "raised"), ("accent", "paper")),
        *(("ink", "accent-soft"), ("soft", "accent-soft"), ("accent", "accent-soft")),
        ("good", "good-soft"),
    ):
        lights = sorted(luminance(colours[each]) for each in (front, back))
        assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5, (front, back)


def luminance(colour: str) -> float:
    """Relative, as WCAG defines it."""
    digits = colour[1:] if len(colour) == 7 else "".join(each * 2 for each in colour[1:])
    values = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    light = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * light[0] + 0.7152 * light[1] + 0.0722 * light[2]


# --- what else is told ----------------------------------------------------------------------------


def test_what_has_no_equal_partner_comes_first_and_each_status_has_a_filter(
    compared: Compared,
) -> None:
    a = {"all.same": torch.ones(2), "all.less": torch.ones(2), "all.more": torch.ones(2)}
    a |= {"gone": torch.ones(2), "grown": torch.ones(2, 2)}
    b = {"all.same": torch.ones(2), "all.less": torch.ones(2) * 1.1, "all.more": torch.ones(2) * 2}
    b |= {"new": torch.ones(2), "grown": torch.ones(3, 2)}
    page = compared(a, b)
    assert page.names() == ["new", "gone", "grown", "all.more", "all.less", "all.same"]
    filters = [each.text for each in page.all("button") if "data-s" in each.attributes]
    assert filters == ["all 6", "added 1", "removed 1", "other shape 1", "changed 2", "same 1"]


def test_the_histogram_has_values_and_says_what_it_counts(compared: Compared) -> None:
    one = torch.ones(4, dtype=torch.bfloat16)
    moved = (one.view(torch.int16) + torch.tensor([0, 1, 2, 3], dtype=torch.int16)).view_as(one)
    page = compared({"w": one}, {"w": moved.view(torch.bfloat16)})
    rows = [each.text for each in page.all("tr") if each.text.startswith(("0", "1", "2"))]
    assert rows == ["025.00 %1", "125.00 %1", "2 to 350.00 %2"]
    (explained,) = (each for each in page.all("p") if "Counted in steps" in each.text)
    assert "steps from one float to the next" in " ".join(explained.text.split())


def test_the_page_says_where_it_comes_from(compared: Compared, weightsmith: Weightsmith) -> None:
    found = compared(base(), tuned()).provenance()
    a, b = (str(compared.folder / side) for side in "ab")
    assert found["command"] == f"weightsmith diff {a} {b} --html {compared.path}"
    assert (found["A"], found["B"]) == (a, b)
    assert found["made by"] == f"weightsmith {__version__}"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", found["date"])
    for side, folder in (("A", a), ("B", b)):
        mark = found[f"{side}'s fingerprint"]
        assert re.fullmatch("[0-9a-f]{64}", mark)
        assert mark in weightsmith("verify", folder, "--json").out


def test_equal_models_get_a_green_verdict_and_no_grid(compared: Compared) -> None:
    page = compared(base(), base())
    (verdict,) = page.all("p", **{"class": "verdict equal"})
    assert verdict.text == "Equal: 35 tensors, the same bit for bit"
    assert len(page.all("table")) == 1
    assert not page.cells()
    assert len(page.rows()) == 35


def test_a_long_name_can_give_up_its_middle_and_loses_none_of_it(compared: Compared) -> None:
    name = f"{ALPHABET}.{ALPHABET}"
    page = compared({name: torch.ones(1)}, {name: torch.ones(1)})
    (whole,) = page.all("bdi", title=name)
    assert whole.text == name


# --- what a page may not do -----------------------------------------------------------------------


def test_the_page_stands_alone(compared: Compared) -> None:
    page = compared(base(), tuned())
    text = compared.path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(", text)
    assert [each["src"] for each in page.elements if "src" in each.attributes] == []
    links = {each["href"] for each in page.elements if "href" in each.attributes}
    assert links == {"data:,", "#tensors"}


def test_no_style_or_script_but_the_pages_own_may_run(compared: Compared) -> None:
    page = compared(base(), tuned())
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    rules = policy["content"].split("; ")
    assert "default-src 'none'" in rules
    assert "unsafe" not in policy["content"]
    for tag in ("style", "script"):
        (element,) = page.all(tag)
        mark = base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{mark}'" in rules
    attributes = {name for element in page.elements for name in element.attributes}
    assert not {name for name in attributes if name == "style" or name.startswith("on")}


def test_a_hostile_name_stays_text(compared: Compared, weightsmith: Weightsmith) -> None:
    name = f"layers.0.{HOSTILE}.weight"
    sides = [
        str(write_model(compared.folder / f"<u>{n}", {name: torch.full((2,), n + 1.0)}))
        for n in range(2)
    ]
    said = weightsmith("diff", *sides, "--html", str(compared.path), "-v")
    assert said.code == 1
    assert "\x1b" not in said.out
    page = compared.page()
    assert len(page.all("script")) == 1
    assert not page.all("u")
    shown = HOSTILE.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert page.names() == [f"layers.0.{shown}.weight"]
    assert page.cell(f"layer 0, {shown}")["class"] == f"t{STEPS // 2}"
    assert page.provenance()["A"] == sides[0]


# --- where it is written --------------------------------------------------------------------------


def test_a_page_is_written_anew_over_an_older_one(compared: Compared) -> None:
    compared.path.write_text("old")
    compared({"w": torch.ones(1)}, {"w": torch.ones(1)})
    assert compared.path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert {each.name for each in compared.folder.iterdir()} == {"a", "b", "x.html"}


def test_no_page_is_written_over_weights_or_where_none_can_be(
    weightsmith: Weightsmith, tmp_path: Path
) -> None:
    model = str(write_model(tmp_path / "a", {"w": torch.ones(1)}))
    weights = Path(model) / "model.safetensors"
    content = weights.read_bytes()
    said = weightsmith("diff", model, model, "--html", str(weights))
    assert said.code == 2
    assert "give it a name that ends in .html" in said.err
    assert weights.read_bytes() == content
    (tmp_path / "folder.html").mkdir()
    for place in ("folder.html", "missing/x.html"):
        said = weightsmith("diff", model, model, "--html", str(tmp_path / place))
        assert said.code == 2
        assert "cannot write" in said.err


def test_a_page_that_cannot_be_written_is_no_defect(
    weightsmith: Weightsmith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    model = str(write_model(tmp_path / "a", {"w": torch.ones(1)}))
    monkeypatch.setattr(fs, "rename", refused)
    said = weightsmith("diff", model, model, "--html", str(tmp_path / "x.html"))
    assert (said.code, said.out) == (9, "")
    assert "target-unwritable" in said.err

"""The page of ``weightsmith diff --html`` as a browser shows it, on wide and narrow screens."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.browser import CHROMIUM, Browser, browser
from tests.support.folders import write_model
from weightsmith.cli.main import run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]

SIZES = [(1280, False), (1280, True), (400, False), (400, True)]
LAYERS = 61
EXPERTS = 16


def mixture(extra: float) -> dict[str, Tensor]:
    """61 layers, as DeepSeek has, with experts; `extra` is added to all but the norms."""
    made = torch.Generator().manual_seed(1)
    tensors = {"model.embed_tokens.weight": torch.randn(8, 4, generator=made)}
    for layer in range(LAYERS):
        within = f"model.layers.{layer}"
        tensors[f"{within}.input_layernorm.weight"] = torch.ones(4)
        for kind in ("q_a_proj", "kv_a_proj_with_mqa", "o_proj"):
            tensors[f"{within}.self_attn.{kind}.weight"] = torch.randn(4, 4, generator=made)
        for expert in range(EXPERTS):
            name = f"{within}.mlp.experts.{expert}.down_proj.weight"
            tensors[name] = torch.randn(4, 4, generator=made)
    return {name: each if "norm" in name else each + extra for name, each in tensors.items()}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page each of different models, of equal ones, and of models with hostile names."""
    folder = tmp_path_factory.mktemp("pages")
    a, b = mixture(0.0), mixture(0.01)
    b["model.layers.3.self_attn.o_proj.weight"] = torch.ones(4, 5)
    b["model.added.weight"] = b.pop("model.layers.4.self_attn.o_proj.weight")
    hostile = {
        f"layers.0.</script><img src=x onerror=alert(1)>{n * '.long' * 30}": torch.ones(2)
        for n in range(2)
    }
    cases = {
        "different": (a, b),
        "equal": (a, a),
        "hostile": (hostile, {name: each * 2 for name, each in hostile.items()}),
    }
    made = {}
    for case, sides in cases.items():
        models = [
            str(write_model(folder / f"{case}-{side}-{'long' * 30}", each))
            for side, each in zip("ab", sides, strict=True)
        ]
        made[case] = folder / f"{case}.html"
        run(["diff", *models, "-q", "--html", str(made[case])])
    return made


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize("case", ["different", "equal", "hostile"])
@pytest.mark.parametrize("width,dark", SIZES)
def test_the_page_fits_its_screen_says_nothing_and_asks_nobody(
    chromium: Browser, pages: dict[str, Path], case: str, width: int, dark: bool
) -> None:
    chromium.show(pages[case], width=width, dark=dark)
    assert chromium.value("document.documentElement.scrollWidth") == width
    assert chromium.said == []
    assert chromium.asked == [pages[case].as_uri()]
    paper = chromium.value("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(22, 21, 27)" if dark else "rgb(251, 250, 248)")


@pytest.mark.parametrize("width,dark", SIZES)
def test_a_name_has_one_line_and_its_end_is_seen(
    chromium: Browser, pages: dict[str, Path], width: int, dark: bool
) -> None:
    for case in ("different", "hostile"):
        chromium.show(pages[case], width=width, dark=dark)
        names = "[...document.querySelectorAll('.name')].filter(each => each.offsetParent)"
        tall = f"{names}.filter(each => each.offsetHeight > 32).length"
        cut = f"{names}.filter(each => each.scrollWidth > each.clientWidth + 1).length"
        assert chromium.value(f"[{tall}, {cut}]") == [0, 0]


def test_the_totals_of_61_layers_are_all_seen_on_a_wide_screen(
    chromium: Browser, pages: dict[str, Path]
) -> None:
    chromium.show(pages["different"], width=1280, dark=False)
    wide = "document.querySelector('.map').parentNode"
    assert chromium.value(f"{wide}.scrollWidth - {wide}.clientWidth") == 0


def test_the_map_scrolls_in_itself_on_a_narrow_screen_and_keeps_its_names(
    chromium: Browser, pages: dict[str, Path]
) -> None:
    chromium.show(pages["different"], width=400, dark=False)
    wide = "document.querySelector('.map').parentNode"
    head = "document.querySelector('.map tbody th').getBoundingClientRect().left"
    chromium.value(f"{wide}.scrollLeft = 500")
    assert chromium.value(f"{wide}.scrollLeft") == 500
    assert chromium.value(head) == chromium.value(f"{wide}.getBoundingClientRect().left")
    least = "Math.min(...[...document.querySelectorAll('.map a')].map(each => each.offsetHeight))"
    assert chromium.value(least) >= 14


def test_the_map_is_walked_with_the_keyboard_and_a_cell_leads_to_its_rows(
    chromium: Browser, pages: dict[str, Path]
) -> None:
    chromium.show(pages["different"], width=1280, dark=False)
    focus = "document.activeElement.ariaLabel.split('\\n')[0]"
    chromium.press("Tab")
    assert chromium.value(focus) == "layer 0, input_layernorm"
    for key, there in (
        ("ArrowRight", "layer 1, input_layernorm"),
        ("ArrowDown", "layer 1, mlp.experts.*.down_proj"),
        ("ArrowDown", "layer 1, self_attn.kv_a_proj_with_mqa"),
        ("End", "self_attn.kv_a_proj_with_mqa"),
        ("Home", "layer 0, self_attn.kv_a_proj_with_mqa"),
    ):
        chromium.press(key)
        assert chromium.value(focus) == there
        tip = "document.getElementById('tip')"
        assert chromium.value(f"!{tip}.hidden && {tip}.textContent").startswith(f"{there}\n")
    chromium.press("Enter")
    shown = "[...document.querySelectorAll('.tensors tbody tr:not([hidden]) th')]"
    assert chromium.value(f"{shown}.map(each => each.textContent)") == [
        "model.layers.0.self_attn.kv_a_proj_with_mqa.weight"
    ]
    assert chromium.value("document.activeElement.id") == "tensors"
    chromium.value("document.getElementById('chosen').click()")
    assert chromium.value(f"{shown}.length") == 500
    assert chromium.said == []


def test_a_status_and_a_part_of_a_name_filter_the_rows(
    chromium: Browser, pages: dict[str, Path]
) -> None:
    chromium.show(pages["different"], width=400, dark=False)
    shown = "[...document.querySelectorAll('.tensors tbody tr:not([hidden])')]"
    press = "[...document.querySelectorAll('[data-s]')].find(each => each.textContent.startsWith"
    for status, count in (("added", 1), ("removed", 1), ("other shape", 1), ("same", LAYERS)):
        chromium.value(f"{press}('{status}')).click()")
        assert chromium.value(f"{shown}.length") == count
    wanted = "document.getElementById('wanted')"
    chromium.value(f"{wanted}.value = 'LAYERS.60.'; {wanted}.dispatchEvent(new Event('input'))")
    assert chromium.value(f"{shown}.length") == 1
    assert chromium.value("document.getElementById('count').textContent") == (
        f"1 of {LAYERS * (EXPERTS + 4) + 2:,} tensors".replace(",", " ")
    )


def test_paper_holds_all_rows(chromium: Browser, pages: dict[str, Path]) -> None:
    chromium.show(pages["different"], width=1280, dark=False)
    hidden = "document.querySelectorAll('.tensors tbody tr[hidden]').length"
    assert chromium.value(hidden) > 0
    chromium.value("dispatchEvent(new Event('beforeprint'))")
    assert chromium.value(hidden) == 0


def test_each_sheet_of_paper_with_rows_begins_with_the_head_of_the_table(
    chromium: Browser, pages: dict[str, Path]
) -> None:
    chromium.show(pages["different"], width=1280, dark=False)
    for part, colour in (("thead", "red"), ("tbody", "lime")):
        rule = f".tensors {part} * {{ color: {colour} !important }}"
        chromium.value(f"document.styleSheets[0].insertRule('{rule}')")
    wanted = "document.getElementById('wanted')"
    chromium.value(f"{wanted}.value = 'q_a_proj'; {wanted}.dispatchEvent(new Event('input'))")
    sheets = [painted for painted in chromium.sheets() if b"0 1 0 rg" in painted]
    assert len(sheets) > 2
    assert [sheet for sheet in sheets if b"1 0 0 rg" not in sheet] == []

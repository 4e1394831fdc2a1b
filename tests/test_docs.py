"""The pages of docs/ and the README, as whoever reads them as files finds them."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import weightsmith
from tests.support.paths import ROOT
from weightsmith.version import HOMEPAGE

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def prose(page: Path) -> str:
    """A page's text without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """The files of this repository that a page links to, each with the anchor, if any, in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not re.match(r"[a-z]+:", target):
            name, _, anchor = target.partition("#")
            yield (page.parent / name).resolve() if name else page, anchor


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in its address, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for file, anchor in links(page):
        assert file.exists(), file
        assert not anchor or anchor in anchors(file), f"{file}#{anchor}"


def test_every_page_has_a_room() -> None:
    alone = {"CONTRIBUTING", "SECURITY", "index", "releasing"}
    outside = {page.stem for page in (ROOT / "docs").glob("*.md")}
    assert outside - alone - {name for name in outside if name.startswith("README.")} == set()


@pytest.mark.parametrize("page", ["README.zh.md", "README.ko.md", "index.md"])
def test_the_front_pages_show_the_same_commands(page: str) -> None:
    english, other = (
        re.findall(
            r"^```sh\n(weightsmith .*?)^```",
            (ROOT / name).read_text("utf-8"),
            re.MULTILINE | re.DOTALL,
        )
        for name in ("README.md", f"docs/{page}")
    )
    assert other == english


def test_the_address_of_the_project_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["urls"]["Homepage"] == HOMEPAGE
    assert [url for url in project["urls"].values() if not url.startswith(HOMEPAGE)] == []


def test_the_front_page_leads_to_the_notebooks_and_to_all_of_the_reference() -> None:
    docs = ROOT / "docs"
    led = {file for file, _ in links(docs / "index.md")}
    reference = (path for path in (docs / "reference").iterdir() if path.suffix in {".md", ".rst"})
    assert {*reference, *(docs / "notebooks").glob("*.ipynb")} - led == set()


def test_the_reference_of_python_holds_every_public_name() -> None:
    text = (ROOT / "docs" / "reference" / "python-api.rst").read_text("utf-8")
    shown = re.findall(r"^\.\. (?:auto\w+|data):: (\w+)$", text, re.MULTILINE)
    assert sorted(shown) == sorted(weightsmith.__all__)


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_asks_no_foreign_host(tmp_path: Path) -> None:
    site = tmp_path / "site"
    build = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet"]
    trees = ["-d", str(tmp_path / "trees"), str(ROOT / "docs"), str(site)]
    done = subprocess.run([*build, *trees], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    fetched = r"<(?:script|img|iframe|source|video)[^>]*\bsrc|<link[^>]*\bhref"
    asked = rf'(?:{fetched})="(?:https?:)?//[^"]*'
    pages = sorted(site.rglob("*.html"))
    assert [(page.name, re.findall(asked, page.read_text("utf-8"))) for page in pages] == [
        (page.name, []) for page in pages
    ]
    styles = [path.read_text("utf-8") for path in site.rglob("*.css")]
    assert not [
        text for text in styles if re.search(r"""(?:url\(|@import )["']?(?:https?:)?//""", text)
    ]


HELD = {
    "applies deltas of 2023": "ops/test_vectors.py test_vicuna_comes_out_as_fastchat_made_it",
    "XOR and `.enc` releases": (
        "ops/decode/test_xor.py test_every_byte_is_as_open_assistants_script_made_it"
    ),
    "makes deltas that lose nothing": (
        "ops/deltas/test_round_trip.py test_the_targets_files_come_back_byte_for_byte"
    ),
    "merges LoRA": "ops/merge_lora/test_merge_vectors.py test_what_peft_made_comes_out_bit_for_bit",
    "says what a wrong base is, before it writes": (
        "ops/deltas/test_additive.py"
        " test_a_wrong_base_is_refused_where_a_delta_of_2023_could_not_know"
    ),
    "checks what it wrote": (
        "engine/test_trail.py test_each_piece_is_read_back_wherever_the_file_ends"
    ),
    "goes on after an interruption": (
        "engine/test_crash.py test_killed_after_any_write_nothing_is_published_and_nothing_is_lost"
    ),
    "repairs tokenizer and config": (
        "repair/test_fix_tokenizer.py"
        " test_a_published_folder_is_repaired_proved_and_kept_and_a_second_run_changes_nothing"
    ),
    "empties the hub's cache by rules": (
        "hub/test_clean_cache.py test_max_size_evicts_the_least_recently_used_and_no_more"
    ),
}
"""What the README says that weightsmith does and others do not, and a test that holds it."""


def test_what_the_readme_claims_beside_other_tools_is_held_by_a_test() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    table = text.partition("## Beside other tools")[2].partition("\n\nThe first column")[0]
    rows = re.findall(r"^\| (.+?) \|", table, re.MULTILINE)
    assert rows[2:] == [*HELD]  # behind the head and its line
    for held in HELD.values():
        file, name = held.split()
        assert f"def {name}(" in (ROOT / "tests" / file).read_text("utf-8")

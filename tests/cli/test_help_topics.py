"""``weightsmith help``: every topic, every error, every command."""

import json

import pytest

from tests.support.command_line import Weightsmith
from weightsmith.catalogue.repairs import KnownRepair, load_repairs
from weightsmith.cli.flags import as_flags
from weightsmith.cli.help_topics import TOPICS, exit_codes, placeholders
from weightsmith.cli.pages import pages
from weightsmith.errors import WeightsmithError, known_errors, reference_of


def test_exit_codes_are_those_of_the_error_classes(weightsmith: Weightsmith) -> None:
    codes = exit_codes()
    assert {error.exit_code for error in known_errors()} | {0, 1, 141} == codes.keys()
    out = weightsmith("help", "exit-codes").out
    for code, meaning in codes.items():
        assert f"{code:5}  {meaning[:40]}" in out


@pytest.mark.parametrize("error", [*known_errors()], ids=reference_of)
def test_every_error_is_explained(weightsmith: Weightsmith, error: type[WeightsmithError]) -> None:
    reference = reference_of(error)
    said = weightsmith("help", reference)
    assert said.code == 0
    words = as_flags((error.__doc__ or "").replace("``", "")).split()
    assert said.out.split()[: 1 + len(words)] == [reference, *words]
    assert said.out.endswith(f"Exit code: {error.exit_code}\n")


@pytest.mark.parametrize("repair", load_repairs(), ids=lambda repair: repair.id)
def test_every_known_fault_is_explained(weightsmith: Weightsmith, repair: KnownRepair) -> None:
    said = weightsmith("help", repair.id)
    assert said.code == 0
    assert said.out.startswith(f"{repair.id}: {repair.title.rstrip('.')}\n")
    words = " ".join(said.out.split())
    assert " ".join(repair.change.replace("`", "").split()) in words
    assert " ".join(repair.symptom.replace("`", "").split()) in words


def test_an_error_is_found_as_it_was_printed(weightsmith: Weightsmith) -> None:
    assert weightsmith("help", "[Shard_Truncated]").out.startswith("shard-truncated\n")


@pytest.mark.parametrize("topic", TOPICS)
def test_every_topic_fits_its_width(weightsmith: Weightsmith, topic: str) -> None:
    said = weightsmith("help", topic)
    assert said.code == 0
    assert max(map(len, said.out.splitlines())) <= 80


def test_help_on_a_command_is_its_help(weightsmith: Weightsmith) -> None:
    assert weightsmith("help", "sample").out == weightsmith("sample", "-h").out


def test_help_alone_is_the_short_help(weightsmith: Weightsmith) -> None:
    assert weightsmith("help").out == weightsmith("-h").out


def test_an_unknown_topic_names_the_nearest(weightsmith: Weightsmith) -> None:
    said = weightsmith("help", "exit-coeds")
    assert said.code == 2
    assert said.err.endswith("hint: weightsmith help exit-codes\n")


def test_help_as_json(weightsmith: Weightsmith) -> None:
    document = json.loads(weightsmith("help", "sources", "--json").out)
    assert document["schema"] == "weightsmith.help/1"
    assert document["text"].startswith("Sources\nA SOURCE is where a model is")


def test_templates_show_what_will_stand_in_them() -> None:
    assert placeholders("{file} is {size!r} {{x}}") == "FILE is SIZE {x}"


@pytest.mark.parametrize("address", pages())
def test_every_page_is_shown_with_nothing_of_its_markup(
    weightsmith: Weightsmith, address: str
) -> None:
    said = weightsmith("help", address)
    assert said.code == 0
    assert "```" not in said.out
    assert "](" not in said.out
    code = {line.strip() for line in pages()[address].read_text("utf-8").splitlines()}
    prose = [line for line in said.out.splitlines() if line.strip() not in code]
    assert [line for line in prose if len(line) > 80 and " " in line.strip()] == []


def test_a_page_is_found_without_its_room_unless_a_command_is_called_so(
    weightsmith: Weightsmith,
) -> None:
    assert weightsmith("help", "chains").out == weightsmith("help", "how-to/chains").out
    assert weightsmith("help", "verify").out != weightsmith("help", "how-to/verify").out


def test_help_pages_lists_every_page_by_its_title(weightsmith: Weightsmith) -> None:
    lines = weightsmith("help", "pages").out.splitlines()
    shown = [line.split()[0] for line in lines if line.startswith("  ") and "/" in line]
    assert shown == [*pages()]
    assert "  how-to/chains            Chains and versions" in lines

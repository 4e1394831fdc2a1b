"""Tables, widths and escapes."""

import shlex

import pytest

from weightsmith.cli.layout import (
    brief,
    continued,
    counted_files,
    display_width,
    encodable,
    filled,
    one_line_rows,
    plain,
    safe,
    stacked,
    styled,
    table,
)


def test_columns_are_aligned_and_the_last_is_wrapped_under_itself() -> None:
    text = table(
        [("base", "9", "a b"), ("target", "10", "some words that do not fit on one line here")],
        width=40,
        styles=(),
        right=(1,),
    )
    assert text.splitlines() == [
        "  base     9  a b",
        "  target  10  some words that do not fit",
        "              on one line here",
    ]


def test_a_long_path_is_never_broken() -> None:
    path = "/a-long/path-with/hyphens-and/slashes" * 3
    assert path in table([("base", path)], width=40)


def test_a_row_that_is_too_wide_takes_two_lines() -> None:
    rows = [("", "name", "size", "why"), ("x", "org/a-long-name", "5 kB", "nobody wants it")]
    wide = plain(stacked(rows, at=2, width=50, right=(2,)))
    assert wide.splitlines() == [
        "     name             size  why",
        "  x  org/a-long-name  5 kB  nobody wants it",
    ]
    narrow = plain(stacked(rows, at=2, width=42, right=(2,)))
    assert narrow.splitlines() == [
        "     name",
        "     size  why",
        "  x  org/a-long-name",
        "     5 kB  nobody wants it",
    ]
    assert stacked([], at=2, width=42) == ""


def test_a_long_command_goes_on_in_lines_that_a_shell_joins() -> None:
    command = 'tool combine "0.5*./one + 0.5*./another" ./average --dtype float32 -o x > log'
    lines = continued(command, 40)
    assert lines == [
        "tool combine \\",
        '    "0.5*./one + 0.5*./another" \\',
        "    ./average --dtype float32 -o x \\",
        "    > log",
    ]
    assert shlex.split("\n".join(lines).replace("\\\n", "")) == shlex.split(command)
    assert continued(command, len(command)) == [command]


def test_sentences_are_broken_between_words_and_never_in_a_command() -> None:
    text = f"{styled('hint:', 'cyan')} these are the target's files: weightsmith verify ./it -v"
    assert plain(filled(text, 40)).splitlines() == [
        "hint: these are the target's files:",
        "      weightsmith verify ./it -v",
    ]
    text = "error: it is said by 'weightsmith help sources' alone\n  first of all in it"
    assert filled(text, 30).splitlines() == [
        "error: it is said by",
        "       'weightsmith help sources'",
        "       alone",
        "  first of all in it",
    ]
    command = "hint: weightsmith verify /a/long/path --smoke"
    assert filled(command, 30) == command
    assert filled("a\n\n  b", 30) == "a\n\n  b"


def test_a_row_of_one_line_is_shortened_where_it_may_be() -> None:
    rows = [("a-long-name-of-a-model", "5 kB", "why"), ("b", "10 kB", "because it is so")]
    assert plain(one_line_rows(rows, width=40, shrink=(2, 0), right=(1,))).splitlines() == [
        "  a-long-n…-a-model   5 kB  why",
        "  b                  10 kB  becaus…is so",
    ]


def test_of_a_list_at_the_end_of_a_note_the_first_names_are_shown() -> None:
    note = "a: beside the model, not used: " + ", ".join("bcdefghi")
    assert brief(note, everything=True) == note
    assert brief(note, everything=False) == (
        "a: beside the model, not used: b, c, d, e, f, and 3 more (-v lists all)"
    )
    assert brief("nothing, of note", everything=False) == "nothing, of note"


def test_rows_may_be_shorter_than_the_longest() -> None:
    assert plain(table([("a",), ("b", "c")], width=40)) == "  a\n  b  c"


def test_wide_characters_count_as_two_columns() -> None:
    assert [display_width(text) for text in ("ab", "模型", "e\u0301")] == [2, 4, 1]
    lines = plain(table([("模型", "x"), ("abcd", "y")], width=40)).splitlines()
    assert lines == ["  模型  x", "  abcd  y"]


def test_an_empty_table_is_empty() -> None:
    assert table([], width=40) == ""


def test_our_styles_pass_and_other_control_characters_do_not() -> None:
    assert safe(styled("a", "red") + "\n\x1b[5mb\r") == "\x1b[1;31ma\x1b[0m\n\\x1b[5mb\\r"


def test_styles_come_out_again() -> None:
    assert plain(styled("a", "bold") + styled("", "dim") + "b") == "ab"


def test_what_a_stream_cannot_encode_has_a_stand_in() -> None:
    assert encodable("a → b…", "utf-8") == "a → b…"
    assert encodable("a → b… ±é", "ascii") == "a -> b~ +-\\xe9"
    assert encodable("\udcff", "utf-8") == "\\udcff"


def test_files_are_counted_by_their_endings_and_an_index_without_one_is_none() -> None:
    names = ["part/.metadata", "part/__0_0.distcp", "part/__1_0.distcp", ".metadata"]
    assert counted_files(names) == "2 .distcp files"
    assert counted_files(["a.safetensors"]) == "1 .safetensors file"
    assert counted_files(["b.bin", "a.00.pth"]) == "2 .bin and .pth files"


@pytest.mark.parametrize("together", ["[32, 32, 7]", "12 %", "1 234 567 B", "2.63 MB", "1.4 s"])
def test_a_shape_and_a_number_with_its_unit_are_never_broken(together: str) -> None:
    sentence = f"it is {together} and more"
    for width in range(10, 40):
        assert together in filled(sentence, width)
        assert together in table([["a", sentence]], width=width)

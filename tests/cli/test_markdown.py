"""Pages of Markdown on a terminal."""

from textwrap import dedent

from weightsmith.cli.layout import plain, styled
from weightsmith.cli.markdown import render, title


def shown(text: str, width: int = 40) -> str:
    return plain(render(dedent(text), width))


def test_lines_of_a_paragraph_are_wrapped_together() -> None:
    assert shown("One sentence a line.\nThe next one follows it, and is wrapped.") == (
        "One sentence a line. The next one\nfollows it, and is wrapped."
    )


def test_code_is_shown_as_it_stands() -> None:
    line = "weightsmith convert ./a-long-name ./another-long-name --dtype float16"
    assert shown(f"Type:\n\n```sh\n{line}\n```\n") == f"Type:\n\n{line}"


def test_code_moves_to_the_left_where_its_longest_line_has_no_room_for_the_usual_four_columns() -> (
    None
):
    fits, long = "a" * 36, "b" * 38
    assert shown(f"```\n{fits}\n```") == f"    {fits}"
    assert shown(f"```\n{long}\n  c\n```") == f"  {long}\n    c"


def test_a_list_hangs_behind_its_marks() -> None:
    assert shown("- `one` and some more words than a line has\n  and a second line\n- two") == (
        "- one and some more words than a line\n  has and a second line\n- two"
    )


def test_a_table_stands_in_columns_where_they_fit_and_else_by_rows() -> None:
    text = "| option | what it does |\n| --- | --- |\n| `--a` | a \\| b |\n"
    assert shown(text) == "  option  what it does\n  --a     a | b"
    text = f"| name | how | why |\n| --- | --- | --- |\n| x | {'word ' * 9}| so |\n"
    assert shown(text).splitlines() == [
        "  x",
        "      how: word word word word word word",
        "      word word word",
        "      why: so",
    ]


def test_what_is_stressed_has_a_style_on_every_line() -> None:
    assert render("a **bold word** `--x y`", 8).splitlines() == [
        f"a {styled('bold', 'bold')}",
        f"{styled('word', 'bold')} {styled('--x', 'cyan')}",
        styled("y", "cyan"),
    ]


def test_a_link_is_its_words_and_an_address_outside_is_told() -> None:
    assert shown("see [chains](chains.md#x), [the format](https://example.org/f)", 80) == (
        "see chains, the format (https://example.org/f)"
    )


def test_comments_and_words_to_the_generator_are_left_out() -> None:
    assert shown("<!-- not run: why -->\nText.\n\n```{toctree}\na\n```\n") == "Text."


def test_the_title_is_the_first_heading() -> None:
    assert title("# `convert` a model\n\n## More\n") == "convert a model"
    assert not title("no heading")

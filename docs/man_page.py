"""Manual pages in roff, one for each command and one for the whole, made from click's commands."""

import inspect
import re
from collections.abc import Iterator, Sequence

import click

from weightsmith.cli.help_topics import ENVIRONMENT, exit_codes
from weightsmith.cli.layout import continued
from weightsmith.cli.main import COMMANDS, EXAMPLES
from weightsmith.cli.options import GROUPS, MESSAGES, Command, Option
from weightsmith.version import HOMEPAGE, __version__

_WIDTH = 72
"""Columns that man leaves for an example on a terminal of 80."""


def manual(group: click.Group, root: click.Context) -> dict[str, str]:
    """Every page by its file's name, ``weightsmith-convert.1``."""
    pages = {"weightsmith.1": _page("weightsmith", group, root, _commands())}
    for name in COMMANDS:
        command = group.get_command(root, name)
        if command is None:
            raise LookupError(name)
        with command.context_class(command, info_name=name, parent=root) as context:
            pages[f"weightsmith-{name}.1"] = _page(f"weightsmith-{name}", command, context, ())
    return pages


def _page(
    name: str, command: click.Command, context: click.Context, more: Sequence[str] | Iterator[str]
) -> str:
    summary, *paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    lines = [
        f'.TH "{name.upper()}" "1" "" "weightsmith {__version__}" "weightsmith"',
        ".SH NAME",
        f"{_escaped(name)} \\- {_escaped(summary.rstrip('.'))}",
        ".SH SYNOPSIS",
        f"\\fB{_escaped(context.command_path)}\\fR {_escaped(usage[len(context.command_path) :])}",
        ".SH DESCRIPTION",
    ]
    for paragraph in [summary, *paragraphs]:
        lines += [".PP", *_text(paragraph)]
    examples = command.examples if isinstance(command, Command) else EXAMPLES
    if examples:
        shown = (line for example in examples for line in continued(example, _WIDTH))
        lines += [".SH EXAMPLES", ".nf", *map(_escaped, shown), ".fi"]
    lines += [*_options(command, context), *more]
    lines += [".SH EXIT STATUS", *_list((str(code), text) for code, text in exit_codes().items())]
    lines += [".SH ENVIRONMENT", *_list(ENVIRONMENT)]
    page = command.docs if isinstance(command, Command) and command.docs else "pages"
    lines += [".SH SEE ALSO", f".B weightsmith help {_escaped(page)}", ".PP", HOMEPAGE]
    return "\n".join([*lines, ""])


def _commands() -> Iterator[str]:
    yield ".SH COMMANDS"
    yield from _list((f"weightsmith-{name}(1)", text) for name, (_, text) in COMMANDS.items())


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    """The options under the headings of the command's help."""
    records: dict[str, list[tuple[str, str]]] = {group: [] for group in GROUPS}
    for param in command.get_params(context):
        record = param.get_help_record(context)
        if record is not None and not isinstance(param, click.Argument):
            records[param.group if isinstance(param, Option) else MESSAGES].append(record)
    yield ".SH OPTIONS"
    for group, rows in records.items():
        if rows:
            yield f".SS {group}"
            yield from _list(rows)


def _list(rows: Iterator[tuple[str, str]] | Sequence[tuple[str, str]]) -> Iterator[str]:
    for term, text in rows:
        yield ".TP"
        yield f"\\fB{_escaped(term)}\\fR"
        yield from _text(text)


def _text(text: str) -> Iterator[str]:
    """A text in lines of roff; one that begins with click's mark, a backspace, is not filled."""
    kept = text.startswith("\b")
    lines = text.strip("\b\n").split("\n") if kept else [" ".join(text.split())]
    yield from (".nf", *map(_escaped, lines), ".fi") if kept else map(_escaped, lines)


def _escaped(text: str) -> str:
    """`text` with what roff would take for its own made harmless."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return re.sub(r"^([.'])", r"\\&\1", text)

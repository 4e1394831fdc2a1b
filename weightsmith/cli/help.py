"""``weightsmith help [TOPIC]``."""

import click

from weightsmith.catalogue.repairs import load_repairs
from weightsmith.cli.help_topics import TOPICS, error_page, exit_code_page, exit_codes, repair_page
from weightsmith.cli.layout import plain
from weightsmith.cli.options import Command, dashed, output_options
from weightsmith.cli.output import Output
from weightsmith.cli.pages import address_of, contents, page, pages
from weightsmith.cli.usage import nearest
from weightsmith.errors import CommandLineInvalid, known_errors, reference_of

SCHEMA = "weightsmith.help/1"
_OTHER_WORDS = {"source": "sources", "exit-code": "exit-codes", "env": "environment"}


def _topics(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """All topics that begin so, for completion in a shell."""
    return [name for name in _names(_group(context.find_root())) if name.startswith(incomplete)]


@click.command(
    "help",
    cls=Command,
    examples=[
        "weightsmith help exit-codes",
        "weightsmith help apply-delta",
        "weightsmith help shard-truncated",
        "weightsmith help how-to/convert",
    ],
)
@click.argument("topic", default="", shell_complete=_topics)
@output_options
@click.pass_context
def command(context: click.Context, topic: str) -> None:
    """Explain a command, an exit code, an error, a SOURCE.

    TOPIC is a command, the reference of an error (the word in brackets), a known fault of tokenizer
    or config files (legacy-missing), an exit code, a page of the documentation, or one of:
    exit-codes, environment, sources, pages (which lists them).
    """
    output = context.ensure_object(Output)
    topic = dashed(topic).strip("[]").lower()
    topic = _OTHER_WORDS.get(topic, topic)
    text = _page(context.find_root(), topic, output.width)
    document = {"schema": SCHEMA, "topic": topic, "text": plain(text)}
    output.result(document, human=text, quiet=text)


def _page(root: click.Context, topic: str, width: int) -> str:
    group = _group(root)
    if not topic:
        return root.get_help()
    if topic in TOPICS:
        return TOPICS[topic](width)
    if topic.isdecimal() and int(topic) in exit_codes():
        return exit_code_page(int(topic), width)
    errors = {reference_of(error): error for error in known_errors()}
    if topic in errors:
        return error_page(errors[topic], width)
    repairs = {repair.id: repair for repair in load_repairs()}
    if topic in repairs:
        return repair_page(repairs[topic], width)
    subcommand = group.get_command(root, topic)
    if subcommand is not None:
        with subcommand.context_class(subcommand, info_name=topic, parent=root) as context:
            return context.get_help()
    if topic == "pages":
        return contents(width)
    if address := address_of(topic):
        return page(address, width)
    near = nearest(topic, _names(group))
    raise CommandLineInvalid(reason=f"no help on {topic}", hint=f"weightsmith help {near}".rstrip())


def _group(root: click.Context) -> click.Group:
    if not isinstance(root.command, click.Group):
        raise TypeError(root.command)
    return root.command


def _names(group: click.Group) -> list[str]:
    """All topics except exit codes."""
    errors = map(reference_of, known_errors())
    faults = (repair.id for repair in load_repairs())
    commands = group.list_commands(click.Context(group))
    return [*commands, *TOPICS, "pages", *errors, *faults, *pages()]

"""``weightsmith help [TOPIC]``."""

import click

from weightsmith.cli.help_topics import TOPICS, error_page, exit_code_page, exit_codes
from weightsmith.cli.layout import plain
from weightsmith.cli.options import Command, dashed, output_options
from weightsmith.cli.output import Output
from weightsmith.cli.usage import nearest
from weightsmith.errors import CommandLineInvalid, known_errors, reference_of

SCHEMA = "weightsmith.help/1"
_OTHER_WORDS = {"source": "sources", "exit-code": "exit-codes", "env": "environment"}


@click.command(
    "help",
    cls=Command,
    examples=[
        "weightsmith help exit-codes",
        "weightsmith help apply-delta",
        "weightsmith help shard-truncated",
    ],
)
@click.argument("topic", default="")
@output_options
@click.pass_context
def command(context: click.Context, topic: str) -> None:
    """Explain a command, an exit code, an error, a SOURCE.

    TOPIC is a command, the reference of an error (the word in brackets), an exit code, or one of:
    exit-codes, environment, sources.
    """
    output = context.ensure_object(Output)
    topic = dashed(topic).strip("[]").lower()
    topic = _OTHER_WORDS.get(topic, topic)
    text = _page(context.find_root(), topic, output.width)
    document = {"schema": SCHEMA, "topic": topic, "text": plain(text)}
    output.result(document, human=text, quiet=text)


def _page(root: click.Context, topic: str, width: int) -> str:
    group = root.command
    if not isinstance(group, click.Group):
        raise TypeError(group)
    if not topic:
        return root.get_help()
    if topic in TOPICS:
        return TOPICS[topic](width)
    if topic.isdecimal() and int(topic) in exit_codes():
        return exit_code_page(int(topic), width)
    errors = {reference_of(error): error for error in known_errors()}
    if topic in errors:
        return error_page(errors[topic], width)
    subcommand = group.get_command(root, topic)
    if subcommand is not None:
        with subcommand.context_class(subcommand, info_name=topic, parent=root) as context:
            return context.get_help()
    near = nearest(topic, [*group.list_commands(root), *TOPICS, *errors])
    raise CommandLineInvalid(reason=f"no help on {topic}", hint=f"weightsmith help {near}".rstrip())

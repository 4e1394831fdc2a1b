"""``weightsmith completion bash|zsh|fish``."""

from typing import Final

import click
from click.shell_completion import get_completion_class

from weightsmith.cli.options import COMPLETE_VARIABLE, Command, output_options
from weightsmith.cli.output import Output

SCHEMA: Final = "weightsmith.completion/1"


@click.command(
    "completion",
    cls=Command,
    examples=[
        "weightsmith completion bash > ~/.local/share/bash-completion/completions/weightsmith",
        "weightsmith completion zsh > ~/.zfunc/_weightsmith",
        "weightsmith completion fish > ~/.config/fish/completions/weightsmith.fish",
    ],
    docs="how-to/completion",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@output_options
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print a script that completes command lines.

    For bash, zsh or fish. It completes commands, options and their values, aliases, directories and
    topics of help.
    """
    output = context.ensure_object(Output)
    known = get_completion_class(shell)
    if known is None:
        raise LookupError(shell)
    script = known(context.find_root().command, {}, "weightsmith", COMPLETE_VARIABLE).source()
    document = {"schema": SCHEMA, "shell": shell, "script": script}
    output.result(document, human=script, quiet=script)

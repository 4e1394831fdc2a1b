"""``weightsmith version``."""

import click

from weightsmith.cli.options import Command, output_options
from weightsmith.cli.output import Output
from weightsmith.version import __version__


@click.command("version", cls=Command, examples=["weightsmith version"])
@output_options
@click.pass_obj
def command(output: Output) -> None:
    """Show the version."""
    output.result(
        {"schema": "weightsmith.version/1", "version": __version__},
        human=f"weightsmith {__version__}",
        quiet=__version__,
    )

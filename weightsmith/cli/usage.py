"""A mistake on the command line, told as every other error is told."""

from collections.abc import Iterable

import click
from click.core import ParameterSource

from weightsmith.errors import CommandLineInvalid


def usage_error(error: click.ClickException) -> CommandLineInvalid:
    """What click found, in our words, with the nearest name or the command that shows the help."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    help_command = f"{context.command_path if context else 'weightsmith'} -h"
    near = ""
    origin: list[str] = []
    match error:
        case click.NoSuchOption():
            reason = f"no such option: {error.option_name}"
            near = nearest(error.option_name, error.possibilities or ())
            if context is not None and isinstance(context.command, click.Group):
                help_command = "options follow the command; 'weightsmith COMMAND -h' lists them"
        case click.NoSuchCommand():
            reason = f"no such command: {error.command_name}"
            near = nearest(error.command_name, _commands(context))
        case click.MissingParameter():
            reason = f"missing {error.param_hint or _name(error)}"
        case click.BadParameter():
            reason = f"{error.param_hint or _name(error)}: {_sentence(error)}"
            origin = _from_environment(error)
        case _:
            reason = _sentence(error)
    fault = CommandLineInvalid(
        reason=reason, context=origin, hint=f"did you mean {near}?" if near else help_command
    )
    fault.__cause__ = error
    return fault


def nearest(name: str, names: Iterable[str]) -> str:
    """The one of `names` that `name` was probably meant to be, or nothing."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, list(names), n=1, cutoff=0.7)), "")


def _commands(context: click.Context | None) -> list[str]:
    if context is None or not isinstance(context.command, click.Group):
        return []
    return context.command.list_commands(context)


def _name(error: click.BadParameter) -> str:
    return error.param.get_error_hint(error.ctx) if error.param else "value"


def _sentence(error: click.ClickException) -> str:
    """The sentence of click, in our style: no capital, no full stop."""
    message = error.message.rstrip(".")
    return message[:1].lower() + message[1:]


def _from_environment(error: click.BadParameter) -> list[str]:
    """Which variable a bad value came from, since it is nowhere on the command line."""
    if error.ctx is None or error.param is None or not error.param.name:
        return []
    if error.ctx.get_parameter_source(error.param.name) is not ParameterSource.ENVIRONMENT:
        return []
    return [f"set by {error.ctx.auto_envvar_prefix}_{error.param.name.upper()}"]

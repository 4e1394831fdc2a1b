"""A mistake on the command line, told as every other error is told."""

import shlex
from collections.abc import Iterable, Sequence
from typing import Final

import click
from click.core import ParameterSource

from weightsmith.cli.options import dashed
from weightsmith.errors import CommandLineInvalid

_MEANT: Final = {
    "apply": "apply-delta",
    "check": "verify",
    "clean": "clean-cache",
    "compare": "diff",
    "delta": "make-delta",
    "fetch": "download",
    "fix": "fix-tokenizer",
    "get": "download",
    "info": "inspect",
    "list": "clean-cache --list",
    "ls": "clean-cache --list",
    "make": "make-delta",
    "merge": "merge-lora",
    "prune": "clean-cache",
    "pull": "download",
    "rm": "clean-cache",
    "show": "inspect",
}
"""What other tools call the same thing."""


def usage_error(error: click.ClickException, args: Sequence[str] = ()) -> CommandLineInvalid:
    """What click found on the line `args`, in our words.

    The hint is the line as it was probably meant, ready to be copied, or the command that shows
    the help.
    """
    context = error.ctx if isinstance(error, click.UsageError) else None
    hint = f"{context.command_path if context else 'weightsmith'} -h"
    about: list[str] = []
    wrong, meant = "", ""
    match error:
        case click.NoSuchOption():
            reason = f"no such option: {error.option_name}"
            wrong = error.option_name
            known = getattr(context.command, "meant", {}) if context is not None else {}
            meant = known.get(dashed(wrong)) or nearest(wrong, _options(context))
        case click.NoSuchCommand():
            reason = f"no such command: {error.command_name}"
            wrong = error.command_name
            meant = _MEANT.get(wrong) or nearest(wrong, _commands(context))
        case click.MissingParameter():
            reason = f"missing {error.param_hint or _name(error)}"
        case click.BadParameter():
            reason = f"{error.param_hint or _name(error)}: {_sentence(error)}"
            about = _from_environment(error)
        case _:
            reason = _sentence(error)
    if meant:
        about = [f"did you mean {meant}?"]
        hint = _corrected(args, wrong, meant)
    fault = CommandLineInvalid(reason=reason, context=about, hint=hint)
    fault.__cause__ = error
    return fault


def _corrected(args: Sequence[str], wrong: str, meant: str) -> str:
    """The line with the right word in the place of the wrong one, without the value behind it that
    ``=`` joins to it.
    """
    words = ["weightsmith"]
    for word in args:
        name, equals, value = word.partition("=")
        if name != wrong:
            words.append(word)
        else:
            words += [meant + equals + value] if equals else meant.split()
    return shlex.join(words)


def nearest(name: str, names: Iterable[str]) -> str:
    """The one of `names` that `name` was probably meant to be, or nothing."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, list(names), n=1, cutoff=0.7)), "")


def _options(context: click.Context | None) -> list[str]:
    if context is None:
        return []
    params = context.command.get_params(context)
    return [name for param in params for name in param.opts if name.startswith("--")]


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

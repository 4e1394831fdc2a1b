"""What all commands share: the layout of their help, common options, and types of values.

A command's module holds one `click.Command` named ``command``:

    @click.command("apply-delta", cls=Command, examples=[...], aliases={"path-raw": "base"})
    @option("--base", group=INPUTS, type=SOURCE, help="...")
    @dry_run_option
    @output_options
    @click.pass_obj
    def command(output: Output, base: str, dry_run: bool) -> int | None:
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar, get_args

import click
from click.core import augment_usage_errors
from click.shell_completion import CompletionItem

from weightsmith.cli.layout import continued, styled
from weightsmith.cli.output import Color, Output
from weightsmith.units import parse_size

INPUTS: Final = "Inputs"
TENSORS: Final = "Which tensors"
OUTPUT: Final = "Output"
REPAIR: Final = "Repair"
PUSH: Final = "Push to the hub"
SMOKE: Final = "Smoke test"
SPEED: Final = "Speed and memory"
CLUSTER: Final = "Several machines"
SAFETY: Final = "Safety"
MESSAGES: Final = "Messages"
COMPLETE_VARIABLE: Final = "_WEIGHTSMITH_COMPLETE"
"""Set by the script of ``weightsmith completion`` to what the shell wants: ``bash_complete``."""
GROUPS: Final = (INPUTS, TENSORS, OUTPUT, REPAIR, PUSH, SMOKE, SPEED, CLUSTER, SAFETY, MESSAGES)
"""Headings of a command's options, in the order of its help."""
NAMES_WIDTH: Final = 28
"""Columns that option names may take in help."""

F = TypeVar("F", bound=Callable[..., Any])


def dashed(name: str) -> str:
    """A name of an option or command with dashes: ``fix_tokenizer`` -> ``fix-tokenizer``."""
    return name.replace("_", "-")


# --- help -----------------------------------------------------------------------------------------


class Formatter(click.HelpFormatter):
    """Writes help with bold headings; output without colours drops the style again."""

    def write_heading(self, heading: str) -> None:
        """Write a heading into the buffer."""
        self.write(" " * self.current_indent + styled(f"{heading}:", "bold") + "\n")

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """Write a usage line into the buffer."""
        super().write_usage(prog, args, prefix or styled("Usage:", "bold") + " ")


class Context(click.Context):
    """A click context whose help is written by `Formatter`."""

    formatter_class = Formatter


class Option(click.Option):
    """An option that stands under a heading of its command's help."""

    def __init__(self, *args: Any, group: str = MESSAGES, **attrs: Any) -> None:
        """As click's, and the heading it stands under, one of `GROUPS`."""
        if isinstance(attrs.get("type"), click.IntRange):
            attrs.setdefault("metavar", "N")
        super().__init__(*args, **attrs)
        self.group = group

    def get_help_extra(self, ctx: click.Context) -> Any:
        """As click's, without the range of a number, which would read ``x>=1``."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        return extra

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Its longest name, for messages."""
        return max(self.opts, key=len) if ctx is not None else super().get_error_hint(ctx)


class Command(click.Command):
    """A command whose help shows examples first and options under headings."""

    context_class = Context

    def __init__(
        self,
        *args: Any,
        examples: Sequence[str] = (),
        aliases: Mapping[str, str] | None = None,
        meant: Mapping[str, str] | None = None,
        positional: Sequence[str] = (),
        docs: str = "",
        **attrs: Any,
    ) -> None:
        """As click's, with:

        `aliases`: other tools' names of options (``"path-raw"``), and ours (``"base"``).
        `meant`: names that are wrong here, and the option that is suggested instead.
        `positional`: options whose values may be given without their names, in this order:
        ``apply-delta BASE DELTA DIR``.
        `docs`: the page with more, by its address: ``how-to/convert``.
        """
        ours = aliases or {}
        attrs["context_settings"] = {
            "token_normalize_func": lambda name: ours.get(dashed(name), dashed(name)),
            **attrs.get("context_settings", {}),
        }
        super().__init__(*args, **attrs)
        self.examples = tuple(examples)
        self.meant = {f"--{name}": f"--{option}" for name, option in (meant or {}).items()}
        self.positional = tuple(positional)
        self.docs = docs

    def make_parser(self, ctx: click.Context) -> Any:
        """Click's parser, which gives values without a name to the `positional` options."""
        parser = super().make_parser(ctx)
        parse = parser.parse_args
        params = {param.name: param for param in self.get_params(ctx)}

        def parse_args(args: list[str]) -> tuple[dict[str, Any], list[str], list[click.Parameter]]:
            given, rest, order = parse(args)
            for name in self.positional:
                if rest and name not in given:
                    value = rest.pop(0)
                    given[name] = [value] if params[name].multiple else value
                    order.append(params[name])
            return given, rest, order

        parser.parse_args = parse_args  # type: ignore[method-assign]
        return parser

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """As click's, with the values that may be given without a name."""
        params = {param.name: param for param in self.get_params(ctx)}
        places = (params[name] for name in self.positional)
        shown = (
            param.metavar if param.metavar == "DIR" else max(param.opts, key=len)[2:].upper()
            for param in places
        )
        return [*super().collect_usage_pieces(ctx), *(f"[{name}]" for name in shown)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments; an error in them names the command that it was made in."""
        with augment_usage_errors(ctx):
            return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete options, and sources where one may be given without a name."""
        if not self.positional or incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return SOURCE.shell_complete(ctx, self.params[0], incomplete)

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what the command does, then its examples."""
        super().format_help_text(ctx, formatter)
        write_examples(formatter, self.examples)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options heading by heading."""
        records: dict[str, list[tuple[str, str]]] = {group: [] for group in GROUPS}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None and not isinstance(param, click.Argument):
                group = param.group if isinstance(param, Option) else MESSAGES
                records[group].append(record)
        # One column for all headings, which is easier to read; a longer name has a line of its own.
        lengths = [len(name) for rows in records.values() for name, _ in rows]
        column = max((length for length in lengths if length <= NAMES_WIDTH), default=0)
        for group, rows in records.items():
            if rows:
                with formatter.section(group):
                    formatter.write_dl(
                        [(name.ljust(column), text) for name, text in rows], col_max=column
                    )

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write where to read more."""
        super().format_epilog(ctx, formatter)
        if self.docs:
            formatter.write_paragraph()
            formatter.write_text(f"More: weightsmith help {self.docs}")


def write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    """Write commands that can be copied; a long one is broken into lines that the shell joins."""
    if examples:
        with formatter.section("Examples"):
            indent = " " * formatter.current_indent
            width = formatter.width + 2 - len(indent)  # click leaves two columns free
            for example in examples:
                for line in continued(example, width):
                    formatter.write(f"{indent}{line}\n")


# --- options --------------------------------------------------------------------------------------


def option(*names: str, group: str, **attrs: Any) -> Callable[[F], F]:
    """``click.option`` under a heading of the command's help."""
    return click.option(*names, cls=Option, group=group, **attrs)


def output_option(*names: str, **attrs: Any) -> Callable[[F], F]:
    """The directory that a command makes: ``-o``, ``--output``, and `names` of its own."""
    attrs = {"required": True, "help": "Directory to make.", **attrs}
    return option(
        "-o", "--output", *names, group=OUTPUT, type=_OutputPath(), metavar="DIR", **attrs
    )


def dtype_option(choices: Sequence[str], **attrs: Any) -> Callable[[F], F]:
    """``--dtype``, one of `choices`; torch's short names for floats are taken too."""
    return option("--dtype", group=OUTPUT, type=Dtype(choices), **attrs)


def output_options(function: F) -> F:
    """Add ``--json``, ``-q``, ``-v`` and ``--color``; they take effect before all other options."""
    for decorate in (
        _setting("--color", type=click.Choice(get_args(Color)), metavar="WHEN",
                 help="Colours: auto (default), always or never."),
        _setting("-v", "--verbose", count=True, help="Print more; -vv: still more."),
        _setting("-q", "--quiet", "quiet", count=True,
                 help="Print only the result; -qq: nothing at all."),
        _setting("--json", is_flag=True, help="Print one JSON document."),
    ):  # fmt: skip
        function = decorate(function)
    return function


def _setting(*names: str, **attrs: Any) -> Callable[[F], F]:
    def keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        output = ctx.find_object(Output)
        if output is not None and value:
            setattr(output, param.name or "", value)
            ctx.color = output.shows_color(sys.stdout)

    return option(*names, group=MESSAGES, is_eager=True, expose_value=False, callback=keep, **attrs)


def _keep_dry_run(ctx: click.Context, _: click.Parameter, value: bool) -> bool:
    output = ctx.find_object(Output)
    if output is not None:
        output.plan_is_result = value
    return value


dry_run_option: Final = option(
    "-n",
    "--dry-run",
    group=SAFETY,
    is_flag=True,
    callback=_keep_dry_run,
    help="Print the plan and change nothing.",
)
offline_option: Final = option(
    "--offline", group=INPUTS, is_flag=True, help="Use no network, only the hub's cache."
)
yes_option: Final = option(
    "-y", "--yes", group=SAFETY, is_flag=True, help="Go ahead without asking."
)


# --- types of values ------------------------------------------------------------------------------


class Size(click.ParamType[int]):
    """Bytes, written with a decimal or binary unit."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """``"5GB"`` -> 5000000000."""
        if isinstance(value, int):
            return value
        try:
            nbytes = parse_size(value)
        except ValueError:
            nbytes = 0
        if nbytes < 1:
            self.fail(f"{value!r} is not a size; write it as 5GB, 5GiB or 400MB", param, ctx)
        return nbytes


class Source(click.ParamType[str]):
    """Where a model is, as text; `help sources` explains it. It is opened in `ops`."""

    name = "source"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text with ``~`` expanded. An empty one is refused: its usual cause is an unset shell
        variable.
        """
        if not value:
            self.fail("it is empty", param, ctx)
        return os.path.expanduser(str(value))  # noqa: PTH111  (shells do not, in `--base=~/x`)

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """The catalogue's aliases and hub ids that begin so, and directories."""
        from weightsmith.catalogue.load import load_bases, load_releases

        names = [base.alias for base in load_bases()]
        names += [home.id for release in load_releases() for home in release.hub]
        known = [CompletionItem(name) for name in names if name.startswith(incomplete)]
        # The shell lists directories itself, and drops what was named before that entry.
        return [CompletionItem(incomplete, type="dir"), *known]


class FilePath(click.Path):
    """A path, in which ``~`` is the user's home wherever it stands.

    Whether it can be read is found out where it is read, and told as that.
    """

    def __init__(self, **settings: Any) -> None:
        """As click's."""
        super().__init__(**{"readable": False, **settings})

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click's, after `expanduser`."""
        return super().convert(os.path.expanduser(value), param, ctx)  # noqa: PTH111


class _OutputPath(FilePath):
    """Where a directory is made; ``-`` means standard output elsewhere, and no model goes there."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse ``-``."""
        if value == "-":
            self.fail("a directory is made, no stream; one of that name is ./-", param, ctx)
        return super().convert(value, param, ctx)


class Dtype(click.Choice[str]):
    """A choice of dtypes, by torch's names, long or short."""

    SHORT: Final = {"fp16": "float16", "half": "float16", "bf16": "bfloat16", "fp32": "float32"}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """``"bf16"`` -> ``"bfloat16"``."""
        chosen: str = super().convert(self.SHORT.get(value, value), param, ctx)
        return chosen


SIZE: Final = Size()
SOURCE: Final = Source()
FILE_PATH: Final = FilePath()

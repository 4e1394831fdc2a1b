"""The command ``weightsmith``: the table of commands, and the one place that catches all errors.

Nothing heavy is imported here, so that ``weightsmith --help`` answers at once; a command's module
is imported when that command is run.
"""

import errno
import gc
import importlib
import itertools
import os
import platform
import sys
import traceback
from collections.abc import Sequence
from typing import Final, NoReturn

import click
from click.shell_completion import CompletionItem, shell_complete

from weightsmith.cli.interrupts import HangUp, listen
from weightsmith.cli.options import COMPLETE_VARIABLE, Context, dashed, write_examples
from weightsmith.cli.output import Output, command_line
from weightsmith.cli.usage import usage_error
from weightsmith.errors import (
    DiskFull,
    HungUp,
    InternalError,
    Interrupted,
    KernelUnfit,
    MemoryRanOut,
    PackageMissing,
    SystemRefuses,
    WeightsmithError,
)
from weightsmith.version import HOMEPAGE, __version__

_PACKAGES: Final = {
    "accelerate": "loading a model a tensor at a time",
    "huggingface_hub": "reaching the hub",
    "obstore": "reading from an object store",
    "regex": "matching the patterns of an adapter",
    "safetensors": "loading a model",
    "sentencepiece": "proving a tokenizer",
    "threadpoolctl": "looking for the factors of a merged LoRA",
    "tokenizers": "reading tokenizer.json",
    "torch": "multiplying matrices and loading a model",
    "transformers": "loading a model or its tokenizer",
    "xxhash": "checking versions of a training run",
}
"""Packages that a light install may lack, and what each is needed for."""

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "apply-delta": (
        "weightsmith.cli.apply_delta",
        "Add a published delta to its base: target = base + delta.",
    ),
    "make-delta": (
        "weightsmith.cli.make_delta",
        "Make a delta: how a model differs from its base.",
    ),
    "merge-lora": (
        "weightsmith.cli.merge_lora",
        "Merge adapters, LoRA and others, into their base, on files.",
    ),
    "extract-lora": (
        "weightsmith.cli.extract_lora",
        "Extract a LoRA adapter from a fine-tune and its base.",
    ),
    "convert": (
        "weightsmith.cli.convert",
        "Convert a model: safetensors, dtype, shards, Meta's files.",
    ),
    "combine": (
        "weightsmith.cli.combine",
        "Sum models: averages of checkpoints, task arithmetic.",
    ),
    "run-plan": (
        "weightsmith.cli.run_plan",
        "Make a share of a saved plan, or finish it.",
    ),
    "fix-tokenizer": (
        "weightsmith.cli.fix_tokenizer",
        "Repair tokenizer and config files, and prove the result.",
    ),
    "inspect": (
        "weightsmith.cli.inspect",
        "Show what a directory holds, and what is wrong with it.",
    ),
    "diff": (
        "weightsmith.cli.diff",
        "Compare two models, tensor by tensor.",
    ),
    "verify": (
        "weightsmith.cli.verify",
        "Check that a model is right: files, tokenizer, every byte.",
    ),
    "download": (
        "weightsmith.cli.download",
        "Fetch a model from the hub and check every file.",
    ),
    "clean-cache": (
        "weightsmith.cli.clean_cache",
        "Make room in the hub's cache.",
    ),
    "completion": ("weightsmith.cli.completion", "Print a script that completes command lines."),
    "version": ("weightsmith.cli.version", "Show the version."),
    "help": ("weightsmith.cli.help", "Explain a command, an exit code, an error, a SOURCE."),
}
"""Name -> module whose ``command`` it is, and what it does in one line."""

EXAMPLES: Final = (
    "weightsmith apply-delta --base llama-7b --delta lmsys/vicuna-7b-delta-v1.1 --low-cpu-mem",
    "weightsmith apply-delta --base ./llama-7b --delta ./vicuna-7b-delta-v1.1 --target ./vicuna-7b",
)

_VERBOSE: Final = "weightsmith.verbose"
EXIT_BROKEN_PIPE: Final = 141
"""128 + SIGPIPE, as a shell reports a program that the signal ended."""
EXIT_INTERRUPTED: Final = Interrupted.exit_code


class LazyGroup(click.Group):
    """The table `COMMANDS` as a click group; a command's module is imported by `get_command`."""

    context_class = Context

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note whether ``-v`` is among the options, for ``--version`` is handled before it."""
        own = itertools.takewhile(lambda arg: arg.startswith("-"), args)
        ctx.meta[_VERBOSE] = not {"-v", "--verbose"}.isdisjoint(own)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names in the table's order, which is the order of the work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        loaded = importlib.import_module(module).command
        if not isinstance(loaded, click.Command):
            raise TypeError(module)
        return loaded

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands from the table, importing none, and the few options."""
        names = [
            CompletionItem(name, help=summary)
            for name, (_, summary) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what weightsmith is, then two examples."""
        super().format_help_text(ctx, formatter)
        write_examples(formatter, EXAMPLES)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands from the table, importing none, then the few options."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])
        click.Command.format_options(self, ctx, formatter)


def _show_version(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if not asked or context.resilient_parsing:
        return
    click.echo(f"weightsmith {__version__}")
    if context.meta[_VERBOSE]:
        from weightsmith.codecs.exact import kernel

        said = "none, so deltas are read slowly; install again with a C compiler to have it"
        try:
            found = str(kernel.find() or said)
        except KernelUnfit as unfit:  # --version reports a faulty install, and does not fail on it
            found = f"unfit: {unfit}"
        click.echo(f"compiled part  {found}")
        click.echo(f"python         {platform.python_version()}, {platform.platform()}")
    context.exit()


@click.group(
    cls=LazyGroup,
    epilog="\b\n'weightsmith COMMAND -h' explains a command.\n"
    f"Docs: weightsmith help pages; {HOMEPAGE}",
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": dashed},
    subcommand_metavar="COMMAND [OPTIONS]",
    options_metavar="",
)
@click.option(
    "-V",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    allow_from_autoenv=False,
    callback=_show_version,
    help="Show the version and exit; with -v also the compiled part and Python.",
)
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    expose_value=False,
    allow_from_autoenv=False,
    help="With --version: say more.",
)
def group() -> None:
    """Surgery on model weights: in little memory, at the speed of copying, safe to interrupt."""


def run(args: Sequence[str]) -> int:
    """Run one command line, print its result or its error, and return the exit code.

    click's own `main` is not used: it turns an interrupt into a blank line, and words other errors
    in its own way.
    """
    # A mistake that is found before `--json` is parsed must be reported as JSON too.
    output = Output(json_mode="--json" in args)
    args = options_last(args)
    try:
        try:
            with group.make_context(
                "weightsmith",
                args,
                obj=output,
                auto_envvar_prefix="WEIGHTSMITH",
                color=output.shows_color(sys.stdout),
            ) as context:
                return group.invoke(context) or 0
        except click.exceptions.Exit as done:
            return done.exit_code
        except click.exceptions.NoArgsIsHelpError as error:
            # click's convention, exit 2 and stderr: a script whose variables came out empty
            # has not succeeded.
            click.echo(error.format_message(), err=True, color=output.shows_color(sys.stderr))
            return error.exit_code
        except BrokenPipeError:
            return EXIT_BROKEN_PIPE
        except click.ClickException as error:
            return _fail(output, usage_error(error, args))
        except WeightsmithError as error:
            return _fail(output, error)
        except KeyboardInterrupt as stopped:
            again = command_line(["weightsmith", *args])
            kept = _kept(output)
            way = "to go on" if kept else "to start over"
            kind = HungUp if isinstance(stopped, HangUp) else Interrupted
            return _fail(output, kind(context=kept, hint=f"{way}: {again}"))
        except ImportError as error:
            if (missing := package_missing(error)) is None:
                return _fail(output, _internal_error(error))
            return _fail(output, missing)
        except MemoryError as error:
            reason = str(error) or "an allocation failed"
            return _fail(output, MemoryRanOut(reason=reason, context=_kept(output)))
        except OSError as error:
            return _fail(output, _system_fault(error, output))
        except Exception as error:  # noqa: BLE001  the one place that may
            return _fail(output, _internal_error(error))
    except BrokenPipeError:
        return EXIT_BROKEN_PIPE


def options_last(args: Sequence[str]) -> list[str]:
    """The line with its command in front: ``-q apply-delta ...`` is ``apply-delta -q ...``."""
    at = next((at for at, word in enumerate(args) if dashed(word) in COMMANDS), 0)
    return [*args[at : at + 1], *args[:at], *args[at + 1 :]]


def package_missing(error: ImportError) -> PackageMissing | None:
    """The error for a failed import of a package that a light install lacks.

    None if the import failed for another reason: that is a defect of weightsmith or of the package.
    """
    package = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or package not in _PACKAGES:
        return None
    return PackageMissing(wish=_PACKAGES[package], package=package)


def _system_fault(error: OSError, output: Output) -> WeightsmithError:
    """The error for an `OSError` that no code nearer to its cause has translated."""
    what = error.filename if error.filename is not None else "what was being written"
    if error.errno == errno.ENOENT and error.filename is None:
        what = "the working directory"  # which somebody has deleted; os.getcwd alone names no file
    match error.errno:
        case None:
            return _internal_error(error)  # a library raised it, not the system
        case errno.ENOMEM:
            return MemoryRanOut(reason=error.strerror, context=_kept(output))
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return DiskFull(file=what, reason=error.strerror, context=_kept(output))
    return SystemRefuses(what=what, reason=error.strerror, context=_kept(output))


def _kept(output: Output) -> list[str]:
    """A line on what an interrupted run leaves for the next; none if it leaves nothing."""
    return [*filter(None, [output.kept()])]


def _fail(output: Output, error: WeightsmithError) -> int:
    if isinstance(error, InternalError):
        traceback.print_exception(error.__cause__)
    elif os.environ.get("WEIGHTSMITH_DEBUG"):
        traceback.print_exception(error)
    try:
        output.error(error)
    except BrokenPipeError:
        raise
    except OSError:
        pass  # the terminal is closed, or the disk is full: the message cannot be shown
    return error.exit_code


def _internal_error(error: Exception) -> InternalError:
    fault = InternalError(
        kind=type(error).__name__,
        reason=error,
        weightsmith=__version__,
        python=platform.python_version(),
        system=platform.platform(),
    )
    fault.__cause__ = error
    return fault


def open_streams() -> None:
    """Open the null device in place of standard streams that are closed (``<&-``, ``>&-``), or that
    take no output: a shell that was started without one leaves its script in its place.

    Otherwise the next file to be opened would get the descriptor of one, and a line that a library
    prints would be written into a model.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
            if mode == "w":
                os.write(number, b"")
        except OSError as error:
            if error.errno != errno.EBADF:
                continue  # it is full, or its reader is gone, as will be said
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def main() -> NoReturn:
    """Run this process's command line and end the process."""
    # Tables of 100 000 tensors are millions of objects that stay and refer to each other in no
    # circles. Searching them for circles as often as Python does by default takes a third of the
    # time of planning.
    gc.set_threshold(100_000, 50, 100)
    open_streams()
    if asked := os.environ.get(COMPLETE_VARIABLE):
        sys.exit(shell_complete(group, {}, "weightsmith", COMPLETE_VARIABLE, asked))
    listen()
    # Otherwise the hub library sends the hub facts about this machine. It reads this when imported.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    code = _flushed(run(sys.argv[1:]))
    if "torch" in sys.modules or code in {EXIT_INTERRUPTED, HungUp.exit_code}:
        # Taking torch down costs a third of a second, and an interrupted run would wait for its
        # threads. All output is flushed and every file synced where it was written.
        os._exit(code)
    sys.exit(code)


def _flushed(code: int) -> int:
    """Flush both streams and return the exit code: 141 if the reader of our output has gone, that
    of a full disk if flushing failed otherwise, else `code`.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            broken = isinstance(error, BrokenPipeError)
            code = EXIT_BROKEN_PIPE if broken else code or DiskFull.exit_code
    return code

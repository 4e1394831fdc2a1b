"""All that a command prints goes through here, in one of three modes.

human   results on stdout, everything else on stderr, with colours and progress on a terminal
json    one document on stdout and nothing else, or one error object on stderr
quiet   the result's path or id on stdout; twice: nothing, only the exit code
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, Literal, TextIO

from weightsmith.cli.flags import as_flags
from weightsmith.cli.layout import brief, encodable, filled, plain, safe, styled
from weightsmith.cli.live import Bar, Lines
from weightsmith.errors import ConfirmationNeeded, WeightsmithError, printable, shown
from weightsmith.progress import SILENCE, Progress

ERROR_SCHEMA: Final = "weightsmith.error/1"

Color = Literal["auto", "always", "never"]


class Output:
    """The output of one run; `options.output_options` set its mode before anything is printed."""

    def __init__(self, *, json_mode: bool = False) -> None:
        """Start in human mode, or in json mode."""
        self.json = json_mode
        self.quiet = 0
        """How often ``-q`` was given."""
        self.verbose = 0
        """How often ``-v`` was given."""
        self.plan_is_result = False
        """Whether the plan, or what a check finds, is the run's result and goes to stdout."""
        self.color: Color = "auto"
        self.kept: Callable[[], str] = str
        """What an interrupted run leaves behind; commands set it once there is something."""
        self._warnings: list[str] = []
        self._said: set[str] = set()
        self._live: Bar | None = None

    @property
    def is_human(self) -> bool:
        """Whether the output is for a person: neither json nor quiet mode."""
        return not self.json and not self.quiet

    @property
    def can_ask(self) -> bool:
        """Whether a person can answer: stdin and stderr are a terminal."""
        return self.is_human and sys.stdin.isatty() and sys.stderr.isatty()

    @property
    def width(self) -> int:
        """Columns to fill: those of the terminal, at most 100."""
        return min(_terminal_columns(), 100)

    def shown(self, lines: Sequence[str]) -> list[str]:
        """The first few of many, and how many more there are; with ``-v`` all."""
        return shown(lines, everything=self.verbose > 0)

    def brief(self, note: str) -> str:
        """A note with the first few names of a list at its end; with ``-v`` all."""
        return brief(note, everything=self.verbose > 0)

    # --- messages during a run: stderr, human mode only -------------------------------------------

    def line(self, text: str = "") -> None:
        """A message of one line or more, styled by `layout`."""
        if self.is_human:
            self._write(sys.stderr, text)

    def plan(self, text: str = "") -> None:
        """Print the plan: as a message, or as the result if `plan_is_result`."""
        if self.is_human:
            self._write(sys.stdout if self.plan_is_result else sys.stderr, text)

    def line_once(self, text: str) -> None:
        """Print a sentence unless it was printed before in this run."""
        if text not in self._said:
            self._said.add(text)
            self.sentence(text)

    def sentence(self, text: str) -> None:
        """Print a message in words, broken at the terminal's width."""
        if self.is_human:
            self._write(sys.stderr, text, fill=True)

    def stream(self, text: str) -> None:
        """Print a piece of a message that goes on, without a line break."""
        if self.is_human:
            self._write(sys.stderr, text, end="")

    def detail(self, text: str) -> None:
        """Print a message that only ``-v`` shows."""
        if self.verbose:
            self.line(styled(text, "dim"))

    def warning(self, text: str, details: Sequence[str] = ()) -> None:
        """Print a warning, which is also in the json document; the run goes on."""
        self._warnings.append(f"{text}: {'; '.join(details)}" if details else text)
        if not self.json and self.quiet < 2:
            more = (f"  {line}" for line in self.shown(details))
            lines = [f"{styled('warning:', 'yellow')} {text}", *more]
            self._write(sys.stderr, "\n".join(lines), fill=True)

    def hint(self, text: str) -> None:
        """Print a command that usually follows, its paths relative to the working directory."""
        self.sentence(f"{styled('hint:', 'cyan')} {from_here(text)}")

    # --- how a run ends ---------------------------------------------------------------------------

    def result(
        self, document: Mapping[str, Any], *, human: str, quiet: str = "", then: str = ""
    ) -> None:
        """Print the result, once per run: by mode, `document` as json, `human`, or `quiet`.

        `document` names its ``schema``, such as ``"weightsmith.apply-delta/1"``; fields may be
        added to a schema, never changed. The run's warnings are added to it. `then`, as a rule a
        command, is what usually follows: ``next`` in the document, a hint for a person.
        """
        if self.quiet > 1:
            return
        if self.json:
            more = {"next": as_flags(then)} if then else {}
            warnings = [as_flags(line) for line in self._warnings]
            whole = {**document, **more, "warnings": warnings}
            text = json.dumps(whole, indent=2, default=os.fspath)
        else:
            text = quiet if self.quiet else human
        if text:
            self._write(sys.stdout, text)
        if then:
            self.hint(then)

    def error(self, error: WeightsmithError) -> None:
        """Print the error that ended the run."""
        if self.quiet > 1:
            return
        if self.json:
            self._write(sys.stderr, json.dumps(error_document(error, self._warnings)))
        else:
            said = render_error(error, everything=self.verbose > 0)
            self._write(sys.stderr, said, fill=True)

    def confirm(self, question: str, *, yes: bool) -> bool:
        """Whether the user agrees to `question`, which names counts and bytes; `yes`: ``--yes``.

        Raises: ConfirmationNeeded, where there is nobody to ask.
        """
        if yes:
            return True
        if not self.can_ask:
            raise ConfirmationNeeded(question=question)
        self._write(sys.stderr, f"{question} [y/N] ", end="")
        return sys.stdin.readline().strip().lower() in {"y", "yes"}

    # --- progress ---------------------------------------------------------------------------------

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """A listener for a long run: a bar on a terminal, a line every 30 s elsewhere.

        In json and quiet mode nothing is shown. Inside another `progress` it is the same listener,
        for a terminal has room for one bar.
        """
        if not self.is_human:
            yield SILENCE
        elif self._live is not None:
            yield self._live
        elif not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
            yield Lines(self.sentence)
        else:
            unicode = encodable("━", sys.stderr.encoding) == "━"
            colour = self.shows_color(sys.stderr)
            self._live = Bar(
                self.sentence,
                fill="━" if unicode else "#",
                colored=colour,
                columns=lambda: self.width,
            )
            try:
                yield self._live
            finally:
                self._live.close()
                self._live = None

    # --- streams ----------------------------------------------------------------------------------

    def shows_color(self, stream: TextIO) -> bool:
        """Whether `stream` gets colours.

        ``NO_COLOR`` wins, then ``--color``, ``FORCE_COLOR``, ``TERM=dumb``, last whether it is a
        terminal.
        """
        if os.environ.get("NO_COLOR") or self.color == "never":
            return False
        if self.color == "always" or os.environ.get("FORCE_COLOR"):
            return True
        return stream.isatty() and os.environ.get("TERM") != "dumb"

    def _write(self, stream: TextIO, text: str, end: str = "\n", *, fill: bool = False) -> None:
        """Write text with flags, colours and characters that the stream can show.

        `fill`: break it at the terminal's width; without a terminal, a sentence stays one line.
        """
        text = safe(as_flags(text))
        if fill and stream.isatty():
            text = filled(text, self.width)
        text = text if self.shows_color(stream) else plain(text)
        above_bar: AbstractContextManager[None] = (
            self._live.set_aside() if self._live else nullcontext()
        )
        with above_bar:
            stream.write(encodable(text, stream.encoding or "utf-8") + end)
            stream.flush()


def _terminal_columns() -> int:
    """``COLUMNS``, else the width of the first stream that is a terminal: with a pager on stdout
    that is stderr.
    """
    found = 0
    for stream in (sys.stdout, sys.stderr, sys.stdin):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            found = found or os.get_terminal_size(stream.fileno()).columns
    return shutil.get_terminal_size((found or 100, 24)).columns


def render_error(error: WeightsmithError, *, everything: bool = False) -> str:
    """``error: what [reference]``, its context indented, and ``hint:`` with what to do."""
    reference = styled(f"[{error.reference}]", "dim")
    lines = [f"{styled('error:', 'red')} {error} {reference}"]
    lines += [f"  {line}" for line in shown(error.context, everything=everything)]
    if error.hint_text:
        lines.append(f"{styled('hint:', 'cyan')} {error.hint_text}")
    return "\n".join(lines)


def error_document(error: WeightsmithError, warnings: Sequence[str]) -> dict[str, Any]:
    """The document that a failed run prints in json mode, on stderr."""
    return {
        "schema": ERROR_SCHEMA,
        "code": error.exit_code,
        "reference": error.reference,
        "message": as_flags(str(error)),
        "context": [as_flags(line) for line in error.context],
        "hint": as_flags(error.hint_text),
        "warnings": [as_flags(line) for line in warnings],
    }


def from_here(command: str) -> str:
    """`command` with paths of the working directory and below as ``./NAME``; one that was deleted
    holds none.
    """
    try:
        here = f"{Path.cwd()}/"
    except FileNotFoundError:
        return command
    return re.sub(rf"(?<![^\s'\"+=]){re.escape(here)}", "./", command) if here != "//" else command


def command_line(args: Sequence[str | os.PathLike[str]]) -> str:
    """A command that the user can copy, quoted as a shell needs it."""
    return printable(shlex.join([os.fspath(arg) for arg in args]))

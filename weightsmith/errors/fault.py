"""What every fault of weightsmith has: a name, a sentence and a way out; and text fit for it."""

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

__all__ = [
    "FIRST_SHOWN",
    "LINE_SHOWN",
    "NAME_SHOWN",
    "WeightsmithError",
    "cut",
    "known_errors",
    "masked",
    "printable",
    "reference_of",
    "shown",
]

FIRST_SHOWN = 5
"""How many problems of one kind a message names before it says "and N more"."""
NAME_SHOWN = 200
"""Most characters of a name in a message; a hostile file may hold a name of a hundred million."""
LINE_SHOWN = 1000
"""Most characters of a path, a reason or a line of context."""
_COUNTED = re.compile(r"(\b(\d+) (?:\w+ )?\w+)\(s\)")
_USER_INFO = re.compile(r"(?<=://)[^/\s]*@")


class WeightsmithError(Exception):
    """An error with a name, a message of one sentence, and a hint that says what to do."""

    exit_code: ClassVar[int] = 70
    message: ClassVar[str] = "{what}"
    """Template, filled with the values that the class is raised with."""
    hint: ClassVar[str] = ""
    """What to do about it, a command if there is one; filled like `message`."""

    def __init__(
        self, *, context: Sequence[str] = (), hint: str | None = None, **values: object
    ) -> None:
        """Keep the values; `context` lines are printed below the message, all of them under
        ``-v``.
        """
        self.values = {key: _shown_value(key, value) for key, value in values.items()}
        self.context = tuple(cut(printable(line), LINE_SHOWN) for line in context)
        self.hint_text = printable(hint) if hint is not None else self.hint.format(**self.values)
        super().__init__(_plural(self.message.format(**self.values)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the finished texts: an error crosses to another process with all that it says.

        Exceptions pickle by calling the class with their arguments, which are keywords here.
        """
        return _restored, (type(self), str(self), self.values, self.context, self.hint_text)

    def with_context(self, line: str) -> "WeightsmithError":
        """The same error with `line` put first in its context."""
        return _restored(type(self), str(self), self.values, (line, *self.context), self.hint_text)

    @property
    def reference(self) -> str:
        """The error's name in the documentation, kebab-case."""
        return reference_of(type(self))


def _restored(
    kind: type[WeightsmithError],
    message: str,
    values: dict[str, str],
    context: tuple[str, ...],
    hint: str,
) -> WeightsmithError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.values, error.context, error.hint_text = values, context, hint
    return error


def _plural(text: str) -> str:
    """``3 missing file(s)`` -> ``3 missing files``; ``1 tensor(s)`` -> ``1 tensor``."""
    return _COUNTED.sub(lambda found: found[1] + "s" * (found[2] != "1"), text)


def reference_of(error: type[WeightsmithError]) -> str:
    """``ShardTruncated`` -> ``shard-truncated``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", error.__name__).lower()


def _shown_value(key: str, value: object) -> str:
    """The value as text, a name cut at `NAME_SHOWN` characters, other values at `LINE_SHOWN`."""
    is_name = key != "reason" and not isinstance(value, os.PathLike | Exception)
    return cut(printable(value), NAME_SHOWN if is_name else LINE_SHOWN)


def cut(text: str, limit: int) -> str:
    """At most `limit` characters of the text; three dots stand for what was cut off."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def masked(text: str) -> str:
    """The text with user names and passwords in its addresses hidden: ``https://***@host``."""
    return _USER_INFO.sub("***@", text)


def printable(value: object) -> str:
    r"""Text with control characters escaped, so that a hostile name cannot drive a terminal, and
    passwords masked.

    Line breaks inside a value are escaped too, so that a tensor name cannot forge an output line.
    """
    text = masked(str(value))
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode()
        for char in text
    )


def shown(problems: Sequence[str], *, everything: bool = False) -> list[str]:
    """The first `FIRST_SHOWN` of many problems, and a line with how many more there are."""
    if everything or len(problems) <= FIRST_SHOWN + 1:
        return list(problems)
    rest = len(problems) - FIRST_SHOWN
    return [*problems[:FIRST_SHOWN], f"and {rest} more (-v lists all)"]


def known_errors() -> Iterator[type[WeightsmithError]]:
    """All leaf classes, in the order of their exit codes, for the documentation."""

    def leaves(error: type[WeightsmithError]) -> Iterator[type[WeightsmithError]]:
        children = error.__subclasses__()
        if not children:
            yield error
        for child in children:
            yield from leaves(child)

    yield from sorted(leaves(WeightsmithError), key=lambda e: (e.exit_code, e.__name__))

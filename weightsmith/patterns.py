"""Regular expressions from files of unknown origin, matched as `re` does, within a time limit.

`re` tries every way to match: `([a-z.]+)+!` takes it longer than anybody waits. The package
`regex` reads the same expressions and can be told when to give up.
"""

import re
import time
from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar

Value = TypeVar("Value")

LIMIT_CHARS: Final = 300
"""Of an expression; the names of modules that it is for have at most a hundred."""
LIMIT_S: Final = 2.0
"""That all expressions of one table together may take; published ones take milliseconds."""
_LITERAL_BRACE: Final = re.compile(r"(?<!\\)\{(?!\d*,?\d*\})")
"""`re` takes it for itself where no number follows; `regex` would match fuzzily."""


class PatternUnusable(ValueError):
    """An expression that cannot be compiled, or takes too long; says why."""


class Patterns(Generic[Value]):
    """Values by expressions for module names: the first that matches a name's end counts."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        """Compile the expressions.

        Raises: PatternUnusable.
        """
        self._values = [(key, _compiled(key), value) for key, value in values.items()]
        self._left_s = LIMIT_S

    def value(self, module: str, default: Value) -> Value:
        """The value for a module; `default` where nothing matches its name.

        Source: peft 0.21 ``get_pattern_key``.
        Raises: PatternUnusable.
        """
        for key, expression, value in self._values:
            began = time.thread_time()
            try:
                found = expression.match(module, timeout=max(self._left_s, 0.001))
            except TimeoutError as error:
                message = f"{key!r} takes too long to match {module}"
                raise PatternUnusable(message) from error
            self._left_s -= time.thread_time() - began
            if found:
                return value
        return default


def _compiled(pattern: str) -> Any:
    import regex

    if len(pattern) > LIMIT_CHARS:
        raise PatternUnusable(f"{pattern[:20]!r}... has more than {LIMIT_CHARS} characters")
    whole = rf"(.*\.)?({pattern})$"
    try:
        re.compile(whole)
        return regex.compile(_LITERAL_BRACE.sub(r"\\{", whole), regex.VERSION0)
    except (re.error, regex.error, RecursionError, OverflowError) as error:
        raise PatternUnusable(f"{pattern!r}, which is no pattern: {error}") from error

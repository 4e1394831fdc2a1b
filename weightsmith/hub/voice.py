"""What the hub library has to say, passed on instead of written to the terminal."""

import contextlib
import logging
from collections.abc import Callable, Iterator

Note = Callable[[str], None]
"""Takes one line that a person watching should see now."""


def unheard(_: str) -> None:
    """Take a note and do nothing."""


@contextlib.contextmanager
def library_heard(note: Note) -> Iterator[None]:
    """Pass the hub library's warnings to `note`: that it waits, and tries again."""

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            note(record.getMessage().partition("\n")[0])

    logger = logging.getLogger("huggingface_hub")
    handlers, logger.handlers = logger.handlers, [Notes(logging.WARNING)]
    try:
        yield
    finally:
        logger.handlers = handlers

"""What the hub library has to say, passed on instead of written to the terminal."""

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from typing import Final

from weightsmith.errors import LINE_SHOWN, cut, masked

Note = Callable[[str], None]
"""Takes one line that a person watching should see now."""

_REQUEST: Final = re.compile(r" thrown while requesting \S+ \S+")


def unheard(_: str) -> None:
    """Take a note and do nothing."""


@contextlib.contextmanager
def library_heard(note: Note) -> Iterator[None]:
    """Pass the hub library's warnings to `note`: that it waits, and tries again."""
    # Its own handler is set up when this is imported, and must not come on top of ours.
    from huggingface_hub.utils import logging as library

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said = _REQUEST.sub("", record.getMessage().partition("\n")[0])
            note("hub: " + cut(masked(said), LINE_SHOWN))

    logger = library.get_logger()
    handlers, logger.handlers = logger.handlers, [Notes(logging.WARNING)]
    try:
        yield
    finally:
        logger.handlers = handlers

"""Every case of bad input that is known, by kind."""

from typing import Final

from tests.support.bad_input.case import Case, Cases
from tests.support.bad_input.fit import FIT
from tests.support.bad_input.headers import HEADERS
from tests.support.bad_input.shards import INDEXES, SHARDS
from tests.support.bad_input.sources import SOURCES
from tests.support.bad_input.targets import ROOM, TARGETS
from tests.support.bad_input.training import TRAINING

KINDS: Final[tuple[Cases, ...]] = (
    SOURCES,
    SHARDS,
    INDEXES,
    HEADERS,
    TRAINING,
    FIT,
    TARGETS,
    ROOM,
)
CASES: Final[list[Case]] = [case for kind in KINDS for case in kind]

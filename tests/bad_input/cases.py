"""Every case of bad input that is known, by kind."""

from typing import Final

from tests.bad_input.case import Case, Cases
from tests.bad_input.fit import FIT
from tests.bad_input.headers import HEADERS
from tests.bad_input.shards import INDEXES, SHARDS
from tests.bad_input.sources import SOURCES
from tests.bad_input.targets import ROOM, TARGETS

KINDS: Final[tuple[Cases, ...]] = (SOURCES, SHARDS, INDEXES, HEADERS, FIT, TARGETS, ROOM)
CASES: Final[list[Case]] = [case for kind in KINDS for case in kind]
